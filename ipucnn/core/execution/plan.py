"""One execution model for every backend: the plan, and what a backend must offer.

Terms (see the PopTorch user guide, "Efficient data batching"): **micro-batch** B is what one
replica computes at once; **device iterations** D is how many such steps run before control returns
to the host; **replicas** R are data-parallel copies; **gradient accumulation** G is how many
micro-batches make one weight update. Everything else is derived here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple, Type

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.feeding import Fed
from ipucnn.core.execution.instances import ALONE, Instances

if TYPE_CHECKING:
    from types import TracebackType

    import torch

    from ipucnn.core.execution.training_session import TrainingSession, TrainingSetup
    from ipucnn.inference.calibration import Calibration

PRECISIONS = ("16.16", "16.32", "32.32", "int8")
"""``compute.master``: 16.16 half compute and half weights, 16.32 half compute with fp32 master
weights, 32.32 single precision. What "half" is depends on the device; a `Probe` says it. int8 is
inference with weights and activations quantised after training."""

NORMALISATION_PLACES = ("device", "host", "none")


@dataclass(frozen=True)
class ExecutionPlan:
    """How a model is executed, checked when it is made.

    Attributes:
        micro_batch: B, samples one replica computes at once.
        device_iterations: D, steps per host call.
        replicas: R, data-parallel copies, over all instances.
        gradient_accumulation: G, micro-batches per weight update; 1 for inference.
        pipeline_splits: module paths (`layer1/2`) that begin stages 1, 2, ...
        precision: one of `PRECISIONS`.
        training: whether weights are updated.
        normalisation: where images are normalised, one of `NORMALISATION_PLACES`.
        eight_bit_io: images cross to the device as uint8.
        synthetic: images are made on the device and never cross.
        full_precision_norm: norm layers compute in single precision in a half model.
        instances: host processes that share the replicas.
        seed: for everything random; None leaves it to the device.
        backend_options: values of the options only some backends have, by name.

    Raises:
        UsageError: a value or a combination that no backend can execute.
    """

    micro_batch: int = 1
    device_iterations: int = 1
    replicas: int = 1
    gradient_accumulation: int = 1
    pipeline_splits: Tuple[str, ...] = ()
    precision: str = "16.16"
    training: bool = False
    normalisation: str = "device"
    eight_bit_io: bool = True
    synthetic: bool = False
    instances: int = 1
    full_precision_norm: bool = False
    seed: Optional[int] = None
    backend_options: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        counts = {"batch-size": self.micro_batch, "device-iterations": self.device_iterations,
                  "replicas": self.replicas, "instances": self.instances,
                  "gradient-accumulation": self.gradient_accumulation}
        for name, count in counts.items():
            if count < 1:
                raise UsageError(f"option '--{name}': {count} is too small",
                                 "the smallest value is 1")
        if self.precision not in PRECISIONS:
            raise UsageError(f"unknown precision {self.precision!r}",
                             "precisions: " + ", ".join(PRECISIONS))
        if self.normalisation not in NORMALISATION_PLACES:
            raise UsageError(f"unknown place of normalisation {self.normalisation!r}",
                             "places: " + ", ".join(NORMALISATION_PLACES))
        if self.replicas % self.instances:
            raise UsageError(
                f"{self.replicas} replicas cannot be divided among {self.instances} instances",
                f"use a number of replicas that is a multiple of {self.instances}")
        if self.eight_bit_io and self.normalisation == "host":
            raise UsageError(
                "8-bit input and normalisation on the host exclude each other",
                "use '--normalization-location device', or leave '--eight-bit-io' out")
        repeated = [s for i, s in enumerate(self.pipeline_splits)
                    if _path(s) in [_path(other) for other in self.pipeline_splits[:i]]]
        if repeated:
            raise UsageError(f"pipeline split {repeated[0]!r} is repeated",
                             "name each split once, in the order of execution")
        self._check_pipeline()

    def _check_pipeline(self) -> None:
        if self.stages == 1:
            return
        if self.training:
            needed = 2 * self.stages - 1
            if self.gradient_accumulation < needed:
                raise UsageError(
                    f"{self.stages} pipeline stages need a gradient accumulation of at least "
                    f"{needed} (2 x stages - 1), not {self.gradient_accumulation}",
                    f"use '--gradient-accumulation {needed}' or fewer splits")
        elif self.device_iterations < self.stages:
            raise UsageError(
                f"{self.stages} pipeline stages need at least {self.stages} device iterations, "
                f"not {self.device_iterations}",
                f"use '--device-iterations {self.stages}' or fewer splits")

    @property
    def stages(self) -> int:
        """Pipeline stages: one more than there are splits."""
        return len(self.pipeline_splits) + 1

    @property
    def devices(self) -> int:
        """Devices in use: replicas times stages."""
        return self.replicas * self.stages

    @property
    def combined_batch(self) -> int:
        """Samples per host call: B x D x R x G."""
        return (self.micro_batch * self.device_iterations * self.replicas
                * self.gradient_accumulation)

    @property
    def update_batch(self) -> int:
        """Samples per weight update: B x R x G."""
        return self.micro_batch * self.replicas * self.gradient_accumulation

    @property
    def local_replicas(self) -> int:
        """Replicas of one instance."""
        return self.replicas // self.instances

    def local(self) -> ExecutionPlan:
        """Return the plan of one instance that executes its part without the others."""
        return replace(self, replicas=self.local_replicas, instances=1)

    @property
    def local_batch(self) -> int:
        """Samples per host call of one instance."""
        return self.combined_batch // self.instances

    @property
    def local_devices(self) -> int:
        """Devices of one instance."""
        return self.local_replicas * self.stages

    @property
    def validation_iterations(self) -> int:
        """Device iterations of a validation call: enough to fill the pipeline."""
        return max(self.device_iterations, self.stages)

    def algebra(self) -> Dict[str, Any]:
        """Return its numbers and what follows from them, for results."""
        return {"micro_batch": self.micro_batch, "device_iterations": self.device_iterations,
                "replicas": self.replicas, "instances": self.instances,
                "gradient_accumulation": self.gradient_accumulation,
                "stages": self.stages, "devices": self.devices,
                "combined_batch": self.combined_batch, "update_batch": self.update_batch,
                "precision": self.precision}

    @property
    def pixels(self) -> str:
        """In which form images cross to the device, one of `core.data.prepare.PIXELS`."""
        if self.normalisation == "host":
            return "normalised"
        return "uint8" if self.eight_bit_io else "float"

    @property
    def half(self) -> bool:
        """Whether computation is in half precision."""
        return self.precision.startswith("16")

    def option(self, name: str, default: Any = None) -> Any:
        """Return a backend option's value."""
        value = self.backend_options.get(name)
        return default if value is None else value


def _path(split: str) -> str:
    return split.strip("/").replace(".", "/")


@dataclass(frozen=True)
class Probe:
    """What a backend finds on this machine.

    Attributes:
        usable: whether a session can be made.
        device: the device in words (``"CPU (2 cores, AVX2)"``).
        versions: name and version of what it runs on.
        reason: why it is not usable.
        remedy: how people get it.
        half: what half precision is here (``bfloat16``); empty when there is none.
        notes: what the user should know about speed or precision here.
        preference: its rank for `--backend auto` with this device and plan, at most that of the
            backend's record, which holds when None.
    """

    usable: bool
    device: str = ""
    versions: Dict[str, str] = field(default_factory=dict)
    reason: str = ""
    remedy: str = ""
    half: str = ""
    notes: Tuple[str, ...] = ()
    preference: Optional[int] = None


class InferenceSession(Fed, ABC):
    """A model made ready on a device. Use it as a context manager: leaving it frees the device.

    Attributes:
        samples_per_call: samples that one call takes. A device that holds the whole program takes
            the plan's combined batch; one that need not may take less at a time.
        facts: what the result should say of it (arithmetic, fused layers, stage balance ...).
        reloadable: it can take other weights without being compiled again (`load`, `pause`).
    """

    reloadable: bool = False
    samples_per_call: int
    facts: Dict[str, Any]

    @abstractmethod
    def compile(self) -> float:
        """Make everything ready and return the seconds it took; the first call is then fast."""

    @abstractmethod
    def __call__(self, images: Optional[torch.Tensor]) -> torch.Tensor:
        """Classify a batch.

        Args:
            images: `(n, 3, size, size)`, n at most `samples_per_call`, uint8 or float as the plan
                says; None when the plan is synthetic.

        Returns:
            Logits, float32 on the host, `(n, classes)`.
        """

    def load(self, weights: Dict[str, torch.Tensor]) -> None:
        """Take other weights of the same model; only of sessions that are `reloadable`."""
        raise NotImplementedError

    def pause(self) -> None:
        """Leave the device to another session; the next call returns to it."""

    def device_latency(self) -> Optional[Tuple[float, float, float]]:
        """Return (min, max, mean) seconds of the last call by the device's own counters."""
        return None

    def close(self) -> None:
        """Free the device."""

    def __enter__(self) -> InferenceSession:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()


class Backend(ABC):
    """An execution engine. A backend subclasses this and offers what its record declares."""

    @abstractmethod
    def probe(self) -> Probe:
        """Say whether it can be used here, without raising."""

    def probe_for(self, plan: ExecutionPlan) -> Probe:  # noqa: ARG002 - most look at the machine
        """Say whether `plan` can be executed here, without raising.

        Some plans need less than others: one that only compiles may need no device.
        """
        return self.probe()

    def instances(self) -> Instances:
        """Join the processes that were started to share the work, when there are several.

        Raises:
            UnavailableError: what lets them talk to each other is missing.
        """
        return ALONE

    def inference(self, model: torch.nn.Module, plan: ExecutionPlan,
                  input_size: int) -> InferenceSession:
        """Make an inference session.

        Args:
            model: as `ipucnn.create_model` gives it; the backend may change it.
            plan: what to execute.
            input_size: height and width of the images.

        Raises:
            UsageError: the plan asks for something that this device lacks.
        """
        raise NotImplementedError

    def quantised(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int,
                  calibration: Calibration) -> InferenceSession:
        """Make an inference session in 8-bit integers; of backends whose record lists `int8`.

        The session's facts hold `quantisation`, what `Calibration.report` says, once it is
        compiled.

        Args:
            model: as `ipucnn.create_model` gives it; the backend may change it.
            plan: what to execute; its precision is `int8`.
            input_size: height and width of the images.
            calibration: images to quantise with; `ipucnn.models.normalisation.fed` makes them what
                the plan feeds.

        Raises:
            UsageError: the plan asks for something that this device lacks.
        """
        raise NotImplementedError

    def training(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int) -> TrainingSession:
        """Make a training session.

        Args:
            model: as `ipucnn.create_model` gives it, parameters that rest without gradient; the
                backend may change it.
            plan: what to execute; its `training` is set.
            setup: loss, optimizer and how they are used.
            input_size: height and width of the images.

        Raises:
            UsageError: the plan asks for something that this device lacks.
        """
        raise NotImplementedError
