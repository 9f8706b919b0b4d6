"""The execution plan: batch algebra and precision, common to all backends.

Terms (see the PopTorch user guide, "Efficient data batching"): **micro-batch** B is the number of
samples one replica computes at once; **device iterations** D is the number of such steps that run
before control returns to the host; **replicas** R are data-parallel copies; **gradient
accumulation** G is the number of micro-batches per weight update. All other sizes are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.preprocessing import Preprocessing

PRECISIONS = ("16.16", "16.32", "32.32", "int8")
"""``compute.master``: 16.16 half compute and half weights, 16.32 half compute with fp32 master
weights, 32.32 single precision. The half-precision type depends on the device; see `Probe.half`.
int8 is inference with weights and activations quantised after training."""

REDUCTIONS = ("mean", "sum")
"""How gradients are combined over gradient accumulation; over samples and replicas it is always
their mean."""

NORMALISATION_PLACES = ("device", "host", "none")


@dataclass(frozen=True)
class ExecutionPlan:
    """The execution settings of a model; validated on construction.

    Attributes:
        micro_batch: B, samples one replica computes at once.
        device_iterations: D, steps per host call.
        replicas: R, data-parallel copies, over all instances.
        gradient_accumulation: G, micro-batches per weight update; 1 for inference.
        accumulation_reduction: `mean` or `sum`; a sum is `gradient_factor` times the mean.
        pipeline_splits: module paths (`layer1/2`) that begin stages 1, 2, ...
        sharded: stages compute each micro-batch one after the other instead of as a pipeline.
        precision: `16.16`, `16.32`, `32.32` or `int8`.
        training: whether weights are updated.
        normalisation: the place of normalisation: `device`, `host` or `none`.
        preprocessing: of the network; its scale and shift normalise images of 0 to 255.
        eight_bit_io: images are transferred to the device as uint8.
        synthetic: images are generated on the device and never transferred.
        full_precision_norm: norm layers compute in single precision in a half model.
        instances: host processes that share the replicas.
        seed: for all random numbers; None leaves it to the device.
        recompute: how activations are recomputed in the backward pass: `none`, `auto`
            (the backend chooses) or `manual` (all but the outputs of `recompute_checkpoints`).
        recompute_checkpoints: regular expressions of module paths whose outputs are stored in both
            modes.
        compile_only: the model is compiled but not executed.
        calls_in_flight: number of host calls of inference that can be started before the result of
            the first one is read.
        validation: whether these are the weights of a training, which are validated in its
            half-precision type.

    Raises:
        UsageError: a value or a combination that no backend supports.
    """

    micro_batch: int = 1
    device_iterations: int = 1
    replicas: int = 1
    gradient_accumulation: int = 1
    accumulation_reduction: str = "mean"
    pipeline_splits: Tuple[str, ...] = ()
    sharded: bool = False
    precision: str = "16.16"
    training: bool = False
    normalisation: str = "device"
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    eight_bit_io: bool = True
    synthetic: bool = False
    instances: int = 1
    full_precision_norm: bool = False
    seed: Optional[int] = None
    recompute: str = "none"
    recompute_checkpoints: Tuple[str, ...] = ()
    compile_only: bool = False
    calls_in_flight: int = 1
    validation: bool = False

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
        if self.accumulation_reduction not in REDUCTIONS:
            raise UsageError(f"unknown reduction {self.accumulation_reduction!r} of accumulation",
                             "reductions: " + ", ".join(REDUCTIONS))
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
        if not self.pipelined:
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
        """Number of pipeline stages: one more than the splits."""
        return len(self.pipeline_splits) + 1

    @property
    def pipelined(self) -> bool:
        """Whether stages work on several micro-batches at the same time."""
        return self.stages > 1 and not self.sharded

    @property
    def devices(self) -> int:
        """Number of devices in use: replicas times stages."""
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
    def gradient_factor(self) -> int:
        """Ratio of an update's gradient to the mean over its samples: G for a sum, else 1."""
        return self.gradient_accumulation if self.accumulation_reduction == "sum" else 1

    @property
    def summed_share(self) -> float:
        """The share of a replica's loss, where a device adds up over replicas what it accumulates.

        Multiplied by it, losses give the mean over replicas and the sum over accumulation.
        """
        return 1 / self.replicas if self.accumulation_reduction == "sum" else 1.0

    @property
    def local_replicas(self) -> int:
        """Replicas of one instance."""
        return self.replicas // self.instances

    def local(self) -> ExecutionPlan:
        """Return the plan for one instance that executes its part alone."""
        return replace(self, replicas=self.local_replicas, instances=1)

    def for_images(self, total: int) -> ExecutionPlan:
        """Return the plan of an inference on `total` images, with calls in flight."""
        # with more of them, a short run would end before the first measured call
        return replace(self, calls_in_flight=max(1, -(-total // self.local_batch) // 2))

    def own(self, index: int, total: int) -> range:
        """Return the images of an inference that an instance reads, which are interleaved.

        Args:
            index: of the instance; one that holds a later pipeline stage reads none.
            total: number of images.
        """
        return range(index, total, self.instances) if index < self.instances else range(0)

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
        return max(self.device_iterations, self.stages) if self.pipelined \
            else self.device_iterations

    def algebra(self) -> Dict[str, Any]:
        """Return the plan's sizes and the derived ones, for results."""
        reduction = {"accumulation_reduction": self.accumulation_reduction} if self.training else {}
        return {"micro_batch": self.micro_batch, "device_iterations": self.device_iterations,
                "replicas": self.replicas, "instances": self.instances,
                "gradient_accumulation": self.gradient_accumulation,
                **reduction,
                "stages": self.stages, "devices": self.devices,
                "combined_batch": self.combined_batch, "update_batch": self.update_batch,
                "precision": self.precision}

    @property
    def pixels(self) -> str:
        """The pixel format of transferred images: `uint8`, `float` or `normalised`."""
        if self.normalisation == "host":
            return "normalised"
        return "uint8" if self.eight_bit_io else "float"

    @property
    def half(self) -> bool:
        """Whether computation uses half precision."""
        return self.precision.startswith("16")


def _path(split: str) -> str:
    return split.strip("/").replace(".", "/")
