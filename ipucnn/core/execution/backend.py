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
        remedy: what the user can do so that it becomes usable.
        half: the half-precision type (``bfloat16``); empty if there is none.
        precision: the default ``compute.master`` pair; half precision only if the device computes
            in it.
        notes: notes for the user about speed or precision on this machine.
        preference: rank for `--backend auto` with this device and plan, at most that of the
            backend's record; if None, that of the record.
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
        reloadable: whether other weights can be loaded without recompilation (`load`, `pause`).
        in_flight: number of calls that can be started before the result of the first one is read;
            set by `compile`.
        notes: notes for the user; set by `compile`.
        warm_up: whether `compile` executes a call, so that the first call with images is as fast
            as later ones; False in a run with a single call.
        any_thread: whether other threads call it than the one that compiles, one at a time; set
            before `compile`.
    """

    reloadable: bool = False
    in_flight: int = 1
    warm_up: bool = True
    any_thread: bool = False
    notes: Tuple[str, ...] = ()
    samples_per_call: int
    facts: Dict[str, Any]

    @abstractmethod
    def compile(self) -> float:
        """Compile and warm up, so that the first call is fast; return the duration in seconds."""

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
        """Return (min, max, mean) seconds of the last call, measured by the device, or None."""
        return None

    def finish(self) -> None:
        """End a pass over images; collective if several processes execute the pipeline stages.

        Processes of later stages have no images; in this call they execute the micro-batches of
        the first process.
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

    A backend derives from this class and implements the jobs that its record declares. If the
    record has `options`, the constructor receives an instance as the keyword argument ``options``.
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
        """Return values of the backend's options that `ipucnn run --tune` measures.

        Inference is measured with each of them, the first one before those of other backends. The
        default of these options must be None, so that values that the user gave are recognised and
        kept.

        Args:
            plan: the plan of the inference.

        Returns:
            Mappings from option names to values; an empty mapping changes no option. An empty
            sequence excludes the backend, for example because it compiles for minutes.
        """
        return ({},)

    def inference(self, model: torch.nn.Module, plan: ExecutionPlan,
                  input_size: int) -> InferenceSession:
        """Create an inference session.

        Args:
            model: a model of `ipucnn.create_model`; the backend may modify it.
            plan: the execution plan.
            input_size: height and width of the images.

        Raises:
            UsageError: the device does not support the plan.
        """
        raise NotImplementedError

    def quantised(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int,
                  calibration: Calibration) -> InferenceSession:
        """Create an 8-bit integer inference session; for backends whose record lists `int8`.

        After compilation, the session's fact `quantisation` is the result of
        `Calibration.report`.

        Args:
            model: a model of `ipucnn.create_model`; the backend may modify it.
            plan: the execution plan, with precision `int8`.
            input_size: height and width of the images.
            calibration: images to quantise with; `ipucnn.plugin.fed` converts
                them to the form that the plan feeds.

        Raises:
            UsageError: the device does not support the plan.
        """
        raise NotImplementedError

    def training(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int) -> TrainingSession:
        """Create a training session.

        Args:
            model: a model of `ipucnn.create_model`; frozen parameters do not require gradients. The
                backend may modify it.
            plan: the execution plan, with `training` set.
            setup: loss, optimizer and their settings.
            input_size: height and width of the images.

        Raises:
            UsageError: the device does not support the plan.
        """
        raise NotImplementedError
