"""The interface of backends: probing, inference sessions, and methods that create sessions.

`training_session` defines the interface of training sessions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Sequence, Tuple, Type

from ipucnn.core.execution.feeding import Fed
from ipucnn.core.execution.plan import ExecutionPlan

if TYPE_CHECKING:
    from types import TracebackType

    import torch

    from ipucnn.core.execution.calibration import Calibration
    from ipucnn.core.execution.training_session import TrainingSession, TrainingSetup


@dataclass(frozen=True)
class Probe:
    """The result of probing a backend on this machine.

    Attributes:
        usable: whether a session can be created.
        device: the device in words (``"CPU (2 cores, AVX2)"``).
        versions: name and version of the software it runs on.
        reason: why the backend is not usable.
        remedy: how to make it usable.
        half: the half-precision type (``bfloat16``); empty if there is none.
        precision: the ``compute.master`` pair to use where the user gives none: half precision only
            where the device computes in it.
        notes: notes for the user about speed or precision on this machine.
        preference: its rank for `--backend auto` with this device and plan, at most that of the
            backend's record, which holds when None.
    """

    usable: bool
    device: str = ""
    versions: Dict[str, str] = field(default_factory=dict)
    reason: str = ""
    remedy: str = ""
    half: str = ""
    precision: str = "32.32"
    notes: Tuple[str, ...] = ()
    preference: Optional[int] = None


class InferenceSession(Fed, ABC):
    """A compiled model on a device. Use it as a context manager; exiting frees the device.

    Attributes:
        samples_per_call: samples per call: the plan's combined batch if the whole program runs on
            the device; other devices may take less at a time.
        facts: session details for the result (arithmetic, fused layers, stage balance ...).
        reloadable: whether it can load other weights without recompilation (`load`, `pause`).
        in_flight: how many calls may be started before the result of the first is read; known once
            the session is compiled.
        notes: notes for the user; known once it is compiled.
        warm_up: whether `compile` makes a call, so that the first one for images is as fast as
            those after it; a run of one call clears it.
    """

    reloadable: bool = False
    in_flight: int = 1
    warm_up: bool = True
    notes: Tuple[str, ...] = ()
    samples_per_call: int
    facts: Dict[str, Any]

    @abstractmethod
    def compile(self) -> float:
        """Compile and warm up, so that the first call is fast; return the seconds it took."""

    @abstractmethod
    def __call__(self, images: Optional[torch.Tensor]) -> torch.Tensor:
        """Classify a batch.

        Args:
            images: `(n, 3, size, size)`, n at most `samples_per_call`, uint8 or float as the plan
                specifies; None when the plan is synthetic.

        Returns:
            Logits, float32 on the host, `(n, classes)`.
        """

    def start(self, images: Optional[torch.Tensor]) -> Callable[[], torch.Tensor]:
        """Start a call and return a function that waits for its logits.

        At most `in_flight` calls are started at a time, and their results are read in order.

        Args:
            images: see `__call__`.
        """
        logits = self(images)
        return lambda: logits

    def load(self, weights: Dict[str, torch.Tensor]) -> None:
        """Load other weights of the same model; only supported by `reloadable` sessions."""
        raise NotImplementedError

    def pause(self) -> None:
        """Release the device for another session; the next call acquires it again."""

    def device_latency(self) -> Optional[Tuple[float, float, float]]:
        """Return (min, max, mean) seconds of the last call by the device's own counters."""
        return None

    def finish(self) -> None:
        """End a pass over images; collective where several processes hold the model's stages.

        Those that hold a later stage have no images of their own: this call serves the first.
        """

    def close(self) -> None:
        """Free the device."""

    def __enter__(self) -> InferenceSession:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()


class Backend(ABC):
    """An execution engine.

    A backend derives from this class and implements what its record declares. Where the record
    declares `options`, its constructor takes an instance as the keyword argument ``options``.
    """

    @abstractmethod
    def probe(self) -> Probe:
        """Return whether the backend can be used on this machine; never raises."""

    def probe_for(self, plan: ExecutionPlan) -> Probe:  # noqa: ARG002 - most look at the machine
        """Return whether `plan` can be executed on this machine; never raises.

        Requirements differ by plan: compile-only plans may need no device.
        """
        return self.probe()

    def variants(self, plan: ExecutionPlan) -> Sequence[Mapping[str, Any]]:  # noqa: ARG002
        """Return values of its own options whose speed is worth measuring on this machine.

        `ipucnn run --tune` measures inference with each of them. The first is measured before the
        others. An option that the user gave is left as given; its default is None, so that a given
        value can be recognised.

        Args:
            plan: of the inference.

        Returns:
            Values by the names of options, of which an empty mapping has none; nothing if the
            backend is not to be measured, because its compilation takes minutes for example.
        """
        return ({},)

    def inference(self, model: torch.nn.Module, plan: ExecutionPlan,
                  input_size: int) -> InferenceSession:
        """Create an inference session.

        Args:
            model: as `ipucnn.create_model` returns it; the backend may change it.
            plan: what to execute.
            input_size: height and width of the images.

        Raises:
            UsageError: the plan asks for something that this device lacks.
        """
        raise NotImplementedError

    def quantised(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int,
                  calibration: Calibration) -> InferenceSession:
        """Create an 8-bit integer inference session; for backends whose record lists `int8`.

        Once it is compiled, the session's facts hold `quantisation`, the result of
        `Calibration.report`.

        Args:
            model: as `ipucnn.create_model` returns it; the backend may change it.
            plan: what to execute; its precision is `int8`.
            input_size: height and width of the images.
            calibration: images to quantise with; `ipucnn.data.normalisation.fed` converts
                them to the form that the plan feeds.

        Raises:
            UsageError: the plan asks for something that this device lacks.
        """
        raise NotImplementedError

    def training(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int) -> TrainingSession:
        """Create a training session.

        Args:
            model: as `ipucnn.create_model` returns it; frozen parameters do not require gradients;
                the backend may change it.
            plan: what to execute; its `training` is set.
            setup: loss, optimizer and their settings.
            input_size: height and width of the images.

        Raises:
            UsageError: the plan asks for something that this device lacks.
        """
        raise NotImplementedError
