"""Estimates the memory of a pipeline stage from what its calls compute and store.

`ASSUMPTIONS` lists the assumptions of the estimate. A compiler may use more or less memory,
depending on how it lays out tensors and reuses memory.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Dict, Optional, Tuple

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.names import key
from ipucnn.core.options.composition import CommandOptions
from ipucnn.core.options.owners import AUTO
from ipucnn.core.registry.records import BackendSpec, OptimizerSpec
from ipucnn.core.registry.registry import Registry

if TYPE_CHECKING:
    import torch

    from ipucnn.models.footprint import Trace

IPU, GPU = "IPU", "GPU"

Checkpoints = Tuple[Tuple[int, int], ...]
"""Calls of a trace, and the values that are stored before them."""

MIB = 1 << 20


@dataclass(frozen=True)
class Device:
    """A device, and what it can store.

    Attributes:
        name: for people.
        kind: `IPU` or `GPU`.
        memory: bytes of one device.
    """

    name: str
    kind: str
    memory: int

    @property
    def overhead(self) -> int:
        """Bytes of memory without tensors; see `ASSUMPTIONS`."""
        return self.memory // 5 if self.kind == IPU else 1000 * MIB


MK1 = Device("Mk1", IPU, 1216 * 256 * 1024)
MK2 = Device("Mk2/Bow", IPU, 1472 * 624 * 1024)
"""The IPUs; their memory is the number of tiles times the bytes of a tile."""

GENERATIONS = {"mk1": MK1, "mk2": MK2}
"""IPUs by the name of their generation."""

ASSUMPTIONS = {
    IPU: (
        "an IPU has 304 MiB (Mk1: 1216 tiles of 256 KiB) or 897 MiB (Mk2, Bow: 1472 tiles of "
        "624 KiB), of which code, exchange and padding take a fifth",
        "weights, accumulated gradients and momentum have the type of the weights, which are in "
        "half precision with 16.16; further state of the optimizer is in single precision",
        "with an accumulation of 1 gradients are used where they are made, and take no memory",
        "a pipeline recomputes each stage from its inputs (on backend 'popart' only with "
        "'--recompute-mode auto'); of these, stage i of N keeps 2(N - i) + 1 micro-batches",
        "two micro-batches of images, and two gradients of the largest tensor, exist at a time"),
    GPU: (
        "the driver, its kernels and their work space take 1000 MiB",
        "weights, gradients and the optimizer's state are in single precision, also with 16.16, "
        "which rounds the weights; 16.32 has a copy of the weights in half precision, 16.16 two",
        "in a pipeline, stage i of N stores min(N - i + 1, accumulation) micro-batches (1F1B), or "
        "all of an update with GPipe",
        "two micro-batches of images, and two gradients of the largest tensor, exist at a time")}
"""The assumptions of the estimate, by kind of device."""

COMMON_ASSUMPTIONS = (
    "activations are the floating-point tensors that torch's autograd saves, each once; with "
    "recomputation, the inputs of the recomputed parts and the inside of the largest",
    "the network has the outputs of its record, and its layers are not padded")


@dataclass(frozen=True)
class StageMemory:
    """Bytes that one stage takes.

    Attributes:
        weights: including copies in another precision.
        gradients: accumulated ones.
        optimizer: its state.
        activations: kept for the backward pass, of all micro-batches in flight.
        images: buffers of images, in the first stage.
        temporary: of the largest tensors.
        overhead: code, and other memory without tensors.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    images: int
    temporary: int
    overhead: int

    @property
    def total(self) -> int:
        """The sum."""
        return sum(asdict(self).values())

    def as_dict(self) -> Dict[str, int]:
        """Return the parts and their sum."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class Storing:
    """How a device stores what a model computes.

    Attributes:
        device: the device.
        plan: batch sizes, precision and recomputation; its splits are not used.
        weight_bytes: per weight.
        gradient_bytes: likewise.
        state_bytes: likewise, of the optimizer.
        value_bytes: per activation.
        image_bytes: per image.
        recomputes: activations are recomputed: in a pipeline, and without one.
        checkpoints: what is kept where the model is recomputed: calls of the trace before which
            values are kept, and how many.
        blocks: likewise, between the blocks of the model.
        keeps_blocks: those between blocks are kept too, without a pipeline.
        schedule: of a pipeline on GPUs, `1f1b` or `gpipe`.
    """

    device: Device
    plan: ExecutionPlan
    weight_bytes: float
    gradient_bytes: float
    state_bytes: float
    value_bytes: int
    image_bytes: int
    recomputes: Tuple[bool, bool]
    checkpoints: Checkpoints = ()
    blocks: Checkpoints = ()
    keeps_blocks: bool = False
    schedule: str = "1f1b"

    def in_flight(self, stage: int, stages: int) -> int:
        """Return how many micro-batches stage `stage` of `stages`, from 0, keeps at a time."""
        if stages == 1 or self.plan.sharded or not self.plan.training:
            return 1
        later = stages - 1 - stage
        if self.device.kind == IPU:
            return 2 * later + 1
        micro_batches = self.plan.gradient_accumulation
        return micro_batches if self.schedule == "gpipe" else min(later + 1, micro_batches)

    def memory(self, trace: Trace, part: Tuple[int, int], stage: int, stages: int) -> StageMemory:
        """Return the memory of a stage.

        Args:
            trace: of the model.
            part: its first call, and the one after its last.
            stage: its number, from 0.
            stages: how many there are.
        """
        begin, end = part
        weights = trace.total("parameters", begin, end)
        batch = self.plan.micro_batch * self.value_bytes
        images = 0 if begin or self.plan.synthetic else 2 * self.plan.micro_batch * self.image_bytes
        training = self.plan.training
        return StageMemory(
            round(weights * self.weight_bytes), round(weights * self.gradient_bytes),
            round(weights * self.state_bytes),
            self.activations(trace, part, stage, stages), images,
            2 * trace.most("largest", begin, end) * batch if training else 0,
            self.device.overhead)

    def activations(self, trace: Trace, part: Tuple[int, int], stage: int, stages: int) -> int:
        """Return the bytes of the activations of a stage; see `memory`."""
        begin, end = part
        batch = self.plan.micro_batch * self.value_bytes
        if not self.plan.training:
            return trace.most("alive", begin, end) * batch
        flying = self.in_flight(stage, stages)
        alone = stages == 1 or self.plan.sharded
        if not self.recomputes[alone]:
            return trace.total("stored", begin, end) * batch * flying
        kept_values = {**dict(self.blocks if self.keeps_blocks and alone else ()),
                       **dict(self.checkpoints)}
        points = [(call, kept_values[call]) for call in sorted(kept_values) if begin < call < end]
        begins = [begin, *(call for call, _ in points)]
        kept = sum(values for _, values in points) * batch + (
            trace.calls[begin].passed_on * batch if begin  # images are stored as transferred
            else self.plan.micro_batch * self.image_bytes)
        inside = max(trace.total("stored", *part) for part in zip(begins, [*begins[1:], end]))
        return kept * flying + inside * batch


def device_of(options: CommandOptions, registry: Registry) -> Optional[Device]:
    """Return the IPU of the selected backend, or None.

    It is a Mk2, or the version of `--offline-target-ipu-version`.
    """
    name = options.get("backend")
    if key(name) == AUTO or registry.get_typed(BackendSpec, name).device != IPU:
        return None
    return MK1 if options.plugins.value("offline_target_ipu_version") == 1 else MK2


def storing(options: CommandOptions, plan: ExecutionPlan, registry: Registry, device: Device,
            checkpoints: Checkpoints = (), blocks: Checkpoints = ()) -> Storing:
    """Return how a device stores a training or a run with these options.

    Args:
        options: of the command.
        plan: of it.
        registry: where the optimizer is looked up.
        device: on which it runs.
        checkpoints: see `Storing`.
        blocks: likewise.

    Raises:
        UsageError: an unknown optimizer.
    """
    ipu = device.kind == IPU
    halves = plan.precision == "16.16"
    weight = 2 if halves and (ipu or not plan.training) else 4
    value = 1 if plan.precision == "int8" else 2 if plan.half else 4
    # of autocast, and of the rounding after an update
    copies = 0 if ipu or not plan.training or not plan.half else 4 if halves else 2
    gradient, state = _of_update(options, plan, registry, ipu, weight) if plan.training \
        else (0.0, 0.0)
    pixel = 1 if plan.pixels == "uint8" else value
    pipelined = plan.recompute != "none" or (ipu and key(options.get("backend")) != "popart")
    size = plan.preprocessing.input_size
    return Storing(
        device, plan, weight + copies, gradient, state, value, 3 * size * size * pixel,
        (pipelined, plan.recompute != "none"), checkpoints, blocks,
        plan.recompute == "auto",
        str(options.plugins.value("pipeline_schedule") or "1f1b"))


def _of_update(options: CommandOptions, plan: ExecutionPlan, registry: Registry, ipu: bool,
               weight: int) -> Tuple[float, float]:
    """Return the bytes per weight of the gradient, and of the optimizer with a moving average.

    Args:
        options: of the training.
        plan: of it.
        registry: where the optimizer is looked up.
        ipu: whether the device is an IPU.
        weight: bytes of a weight.
    """
    from ipucnn.models.optimisation import state_size

    optimizer = registry.get_typed(OptimizerSpec, options.get("optimizer"))
    count = state_size(partial(registry.make, optimizer, options=options.plugins.of(
        "optimizer", optimizer.name)))
    accumulates = plan.gradient_accumulation > 1
    gradient = weight if accumulates or not ipu else 0
    state: float = count * weight if not ipu else min(count, 1) * weight + max(count - 1, 0) * 4
    if ipu and count and accumulates and optimizer.name == "sgd_combined":
        state = 0.0  # one tensor for both
    if options.plugins.value("offload_optimizer"):
        state = 0.0
    elif options.plugins.value("enable_optimizer_rts"):
        state /= plan.replicas
    if options.get("ema_decay"):
        state += weight
    return gradient, state


def recompute_checkpoints(model: torch.nn.Module, traced: Trace, plan: ExecutionPlan
                          ) -> Checkpoints:
    """Return the values that `--recompute-checkpoints` stores; see `Storing.checkpoints`.

    Raises:
        UsageError: a pattern matches nothing.
    """
    from ipucnn.models.tracing import recompute_points

    kept: Dict[int, int] = {}
    for path in recompute_points(model, plan.recompute_checkpoints):
        if path in traced.ends:
            call, values = traced.ends[path]
            kept[call] = max(values, kept.get(call, 0))
    return tuple(sorted(kept.items()))
