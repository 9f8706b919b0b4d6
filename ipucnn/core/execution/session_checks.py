"""Checks what third-party backends return: sessions, logits, results of steps, and weights.

Anything else would end in an error that looks like one of ipucnn, or change results silently.
Functions take the plugin in words; it is empty for a built-in backend, which is not checked.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, Callable, Dict, Mapping, Tuple, Type, TypeVar, Union

from ipucnn.core.errors import CHECK_PLUGIN, PluginError
from ipucnn.core.execution.backend import Backend, InferenceSession
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import (
    NonFiniteLoss,
    StateDict,
    StepResult,
    TrainingSession,
)
from ipucnn.core.names import described
from ipucnn.core.registry.records import BackendSpec

SessionT = TypeVar("SessionT", InferenceSession, TrainingSession)

_FLOATS = ("float16", "float32", "float64")


def check_job(backend: Backend, spec: BackendSpec, plan: ExecutionPlan, plugin: str) -> None:
    """Check that a backend has the method with which it executes a plan.

    Raises:
        PluginError: its record declares the job, and it has the method of the base class only.
    """
    declared = spec.training if plan.training else spec.inference
    method = "training" if plan.training else "quantised" if plan.precision == "int8" \
        else "inference"
    if declared and plan.precision in spec.precisions \
            and getattr(type(backend), method) is getattr(Backend, method):
        raise PluginError(f"{plugin} does not implement {method!r}, which its record declares",
                          "report it to the plugin's author")


def opened(session: SessionT, wanted: Type[SessionT], plugin: str) -> SessionT:
    """Return the session that a backend has created.

    Raises:
        PluginError: it is none of the type `wanted`.
    """
    if plugin and not isinstance(session, wanted):
        raise _wrong(plugin, session, f"an object of type {wanted.__name__!r}")
    return session


def compiled(session: Union[InferenceSession, TrainingSession], plugin: str) -> float:
    """Compile a session, and return the duration in seconds.

    Raises:
        PluginError: the duration is no number, or an attribute is missing or of a wrong type.
    """
    seconds = session.compile()
    if not plugin:
        return seconds
    if not isinstance(seconds, Real):
        raise _wrong(f"'compile' of the session of {plugin}", seconds, "a duration in seconds")
    numbers = ("samples_per_call", "in_flight") if isinstance(session, InferenceSession) else ()
    for name in numbers:
        value = getattr(session, name, None)
        if not isinstance(value, Integral) or value < 1:
            raise PluginError(f"{name!r} of the session of {plugin} is {described(value)}, "
                              "expected a whole number of at least 1", CHECK_PLUGIN)
    facts = getattr(session, "facts", None)
    if not isinstance(facts, Mapping):
        raise PluginError(f"'facts' of the session of {plugin} is {described(facts)}, expected a "
                          "dictionary", CHECK_PLUGIN)
    notes = getattr(session, "notes", ())
    if isinstance(notes, str):
        raise PluginError(f"'notes' of the session of {plugin} is {described(notes)}, expected a "
                          "tuple of texts", CHECK_PLUGIN)
    return float(seconds)


def logits_of(wait: Callable[[], Any], images: int, outputs: int, plugin: str) -> Any:
    """Wait for the logits of a call, and return them.

    Args:
        wait: what the session's `start` has returned.
        images: number of images of the call.
        outputs: of the model.
        plugin: of the backend.

    Raises:
        PluginError: they are no array or tensor of the host with a row for each image.
    """
    if not plugin:
        return wait()
    if not callable(wait):
        raise _wrong(f"'start' of the session of {plugin}", wait,
                     "a function that waits for the logits")
    found = wait()
    shape = tuple(getattr(found, "shape", ()))
    kind = str(getattr(found, "dtype", "")).rpartition(".")[2]
    place = str(getattr(found, "device", "cpu"))
    trained = getattr(found, "requires_grad", False)
    if shape != (images, outputs) or kind not in _FLOATS or place != "cpu" or trained:
        raise _wrong(f"the session of {plugin}", found, f"the logits of {images} images as a "
                     f"tensor of torch.float32 {(images, outputs)} on the CPU"
                     + (" without a gradient" if trained else ""))
    return found


def result_of_step(result: Any, update: int, plugin: str) -> StepResult:
    """Return the result of a training step, with numbers of built-in types.

    Args:
        result: what the session's `step` has returned.
        update: number of its first weight update.
        plugin: of the backend.

    Raises:
        NonFiniteLoss: the loss is not finite, for which the session itself should have raised it.
        PluginError: it is no `StepResult` of numbers.
    """
    if not plugin:
        return result  # type: ignore[no-any-return]
    if not isinstance(result, StepResult):
        raise _wrong(f"'step' of the session of {plugin}", result, "an object of type 'StepResult'")
    for name, wanted, words in (("loss", Real, "a number"), ("samples", Integral, "a whole number"),
                                ("correct", Integral, "a whole number"),
                                ("skipped", Integral, "a whole number")):
        value = getattr(result, name)
        if not isinstance(value, wanted):
            raise PluginError(f"{name!r} of the result of a step of {plugin} is "
                              f"{described(value)}, expected {words}", CHECK_PLUGIN)
    if not math.isfinite(result.loss):
        raise NonFiniteLoss(update, float(result.loss))
    return StepResult(float(result.loss), int(result.samples), int(result.correct), result.losses,
                      int(result.skipped))


def shapes_of(weights: StateDict) -> Dict[str, Tuple[int, ...]]:
    """Return the shape of each tensor by name."""
    return {name: tuple(value.shape) for name, value in weights.items()}


def checked_weights(weights: Any, shapes: Mapping[str, Tuple[int, ...]], plugin: str) -> StateDict:
    """Return the weights of a training session, which checkpoints contain.

    Args:
        weights: what the session's `weights` has returned.
        shapes: those of the model, by name.
        plugin: of the backend.

    Raises:
        PluginError: they are not the tensors of the model, in float32 by its names.
    """
    if not plugin:
        return weights  # type: ignore[no-any-return]
    if not isinstance(weights, Mapping):
        raise _wrong(f"'weights' of the session of {plugin}", weights, "a dictionary of tensors")
    missing = [name for name in shapes if name not in weights]
    if missing:
        raise PluginError(f"the weights that the session of {plugin} returned lack {missing[0]!r}",
                          CHECK_PLUGIN)
    for name, value in weights.items():
        if name not in shapes:
            problem = "is not one of the model"
        elif not hasattr(value, "layout") or tuple(value.shape) != shapes[name]:
            problem = f"is {described(value)}, expected a tensor of shape {shapes[name]}"
        elif value.is_floating_point() and not str(value.dtype).endswith("float32"):
            problem = f"is {described(value)}, expected float32"
        else:
            continue
        raise PluginError(f"weight {name!r} that the session of {plugin} returned {problem}",
                          CHECK_PLUGIN)
    return dict(weights)


def _wrong(who: str, value: Any, expected: str) -> PluginError:
    """Return the error for a value of a wrong type."""
    return PluginError(f"{who} returned {described(value)}, expected {expected}", CHECK_PLUGIN)
