"""Computation, memory and inputs of each pipeline stage of a training.

They are computed from the shapes of the model, which is called on the meta device; see
`ipucnn.models.footprint` and `ipucnn.models.stage_memory`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.names import key
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.showing import Table
from ipucnn.models.stage_memory import (
    ASSUMPTIONS,
    COMMON_ASSUMPTIONS,
    GENERATIONS,
    GPU,
    MIB,
    MK2,
    Device,
    StageMemory,
    device_of,
)
from ipucnn.training.options.train_options import TrainOptions

if TYPE_CHECKING:
    from ipucnn.models.footprint import Trace

FITS, CLOSE, TOO_LARGE = "fits", "close", "does not fit"

MARGIN = 0.15
"""Share of the memory by which an estimate may be wrong in either direction."""

FULL = 0.95
"""Share of the time with work below which a hint on accumulation is shown."""


@dataclass(frozen=True)
class Stage:
    """One pipeline stage.

    Attributes:
        begins_at: path of its first module; `input` for the first stage.
        parameters: number of its weights.
        multiply_adds: for one image, of convolutions and linear layers.
        share: of the model's multiply-adds.
        activations: values that the backward pass needs, for one image.
        inputs: values that the stage receives, for one image.
    """

    begins_at: str
    parameters: int
    multiply_adds: int
    share: float
    activations: int
    inputs: int

    def as_dict(self) -> Dict[str, Any]:
        """Return the stage as plain types."""
        return {"begins_at": self.begins_at, "parameters": self.parameters,
                "multiply_adds": self.multiply_adds, "share": round(self.share, 4),
                "activations": self.activations, "inputs": self.inputs}


@dataclass(frozen=True)
class Estimate:
    """The estimated memory of all stages on one kind of device.

    Attributes:
        device: the device.
        precision: of the computation.
        stages: the memory of each stage.
        kept: bytes of each stage's activations if all are kept.
        recomputed: bytes of each stage's activations with recomputation.
        in_flight: micro-batches that each stage keeps at a time.
    """

    device: Device
    precision: str
    stages: Tuple[StageMemory, ...]
    kept: Tuple[int, ...]
    recomputed: Tuple[int, ...]
    in_flight: Tuple[int, ...]

    @property
    def largest(self) -> int:
        """Bytes of the largest stage."""
        return max(stage.total for stage in self.stages)

    @property
    def share(self) -> float:
        """The largest stage as a share of the device's memory."""
        return self.largest / self.device.memory

    @property
    def verdict(self) -> str:
        """Whether the stages fit: `fits`, `close` (within the margin), or `does not fit`."""
        if self.share > 1 + MARGIN:
            return TOO_LARGE
        return FITS if self.share <= 1 - MARGIN else CLOSE

    def as_dict(self) -> Dict[str, Any]:
        """Return the estimate as plain types, sizes in bytes."""
        return {"device": self.device.name, "memory": self.device.memory,
                "precision": self.precision, "verdict": self.verdict, "largest": self.largest,
                "share": round(self.share, 4),
                "stages": [{**memory.as_dict(), "activations_kept": kept,
                            "activations_recomputed": recomputed, "in_flight": flying}
                           for memory, kept, recomputed, flying in zip(
                               self.stages, self.kept, self.recomputed, self.in_flight)]}


@dataclass(frozen=True)
class Pipeline:
    """The stages of a training, their utilisation and their memory.

    Attributes:
        stages: in order of execution.
        micro_batches: per weight update and replica.
        sharded: whether stages are executed one after the other.
        estimates: by device; the first is the one that the plan is for.
        best: the balance of the splits of `auto:N` with as many stages; None where there are none.
    """

    stages: Tuple[Stage, ...]
    micro_batches: int
    sharded: bool = False
    estimates: Tuple[Estimate, ...] = ()
    best: Optional[float] = None

    @property
    def balance(self) -> float:
        """Mean multiply-adds of the stages divided by the largest: 1 if all have the same cost."""
        return balance_of([stage.multiply_adds for stage in self.stages])

    @property
    def fill(self) -> float:
        """Share of the time in which a stage has work: G / (G + stages - 1).

        Source: Huang et al., "GPipe" (2019), section 2.3: bubbles of (stages - 1) of
        (G + stages - 1) steps. A pipeline of IPUs, in which each computes a forward and a backward
        step per cycle, is filled and emptied in the same time. With `--sharded`, it is 1 / stages.
        """
        if self.sharded:
            return 1 / len(self.stages)
        return self.micro_batches / (self.micro_batches + len(self.stages) - 1)

    @property
    def use(self) -> float:
        """Share of the devices' time in which they compute: fill times balance."""
        return self.fill * self.balance

    @property
    def full_from(self) -> int:
        """The accumulation from which stages have work for 95 % of the time."""
        return math.ceil(FULL / (1 - FULL) * (len(self.stages) - 1) - 1e-9) or 1

    @property
    def sentence(self) -> str:
        """The utilisation of the stages, as text."""
        text = (f"The largest stage has work for {self.fill:.0%} of the time, all together for "
                f"{self.use:.0%}.")
        if not self.sharded and self.micro_batches < self.full_from:
            text += f" With an accumulation of {self.full_from} it has work for {FULL:.0%}."
        if self.best is not None and self.best > self.balance + 0.02:
            text += (f" '--pipeline-splits auto:{len(self.stages)}' has a balance of "
                     f"{self.best:.0%}, these splits {self.balance:.0%}.")
        return text

    def as_dict(self) -> Dict[str, Any]:
        """Return the stages as plain types."""
        return {"stages": [stage.as_dict() for stage in self.stages],
                "balance": round(self.balance, 4), "fill": round(self.fill, 4),
                "efficiency": round(self.use, 4),
                "accumulation_for_95_percent": None if self.sharded else self.full_from,
                "balance_of_automatic_splits": self.best and round(self.best, 4),
                "memory": [estimate.as_dict() for estimate in self.estimates],
                "assumptions": self.assumptions}

    @property
    def assumptions(self) -> List[str]:
        """The basis of the memory estimates."""
        kinds = dict.fromkeys(estimate.device.kind for estimate in self.estimates)
        return [*COMMON_ASSUMPTIONS, *(f"{kind}: {text}" for kind in kinds
                                       for text in ASSUMPTIONS[kind])]

    def tables(self) -> List[Table]:
        """Return the stages, their memory on the first device, and where they fit."""
        first = self.estimates[0]
        other = first.kept if first.recomputed == tuple(
            stage.activations for stage in first.stages) else first.recomputed
        what = "all kept" if other is first.kept else "recomputed"
        return [
            Table(("begins at", "parameters", "multiply-adds", "share", "inputs", "activations"),
                  [[stage.begins_at, f"{stage.parameters:,}",
                    f"{stage.multiply_adds / 1e6:,.0f} M", f"{100 * stage.share:.1f} %",
                    f"{stage.inputs:,}", f"{stage.activations:,}"] for stage in self.stages]),
            Table(("begins at", "weights", "gradients", "optimizer", "activations", f"({what})",
                   "other", "MiB"),
                  [[stage.begins_at, *map(_mib, (
                      memory.weights, memory.gradients, memory.optimizer, memory.activations,
                      instead, memory.images + memory.temporary + memory.overhead, memory.total))]
                   for stage, memory, instead in zip(self.stages, first.stages, other)],
                  f"Estimated memory of a replica on {first.device.name}, {first.precision}, MiB"),
            Table(("device", "memory", "largest stage", "share", "estimate"),
                  [[estimate.device.name, _mib(estimate.device.memory), _mib(estimate.largest),
                    f"{estimate.share:.0%}", estimate.verdict] for estimate in self.estimates],
                  "Where it fits, MiB")]


def balance_of(costs: Sequence[int]) -> float:
    """Return the mean divided by the largest cost; 1 if all costs are 0."""
    largest = max(costs)
    return sum(costs) / len(costs) / largest if largest else 1.0


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f}" if size >= 10 * MIB or not size else f"{size / MIB:.1f}"


def pipeline_of(options: TrainOptions, plan: ExecutionPlan, registry: Registry,
                devices: Sequence[Device]) -> Pipeline:
    """Return the stages of a training.

    Args:
        options: of the training.
        plan: of the training; its splits are resolved as a run resolves them.
        registry: where names are looked up.
        devices: for which memory is estimated; the first is the one that the plan is for.

    Raises:
        UsageError: a split is not valid, or the model cannot be traced.
    """
    from ipucnn.models.balance import block_begins, cheapest_splits, network_of, rule_of
    from ipucnn.models.tracing import resolved

    spec = registry.get_typed(ModelSpec, options.network.model)
    size = options.network.input_size or spec.input_size
    model, traced = network_of(options, registry)
    paths = [call.path for call in traced.calls if call.path]
    splits = resolved(model, plan.pipeline_splits, paths)
    parts = traced.parts(splits)
    plan = replace(plan, preprocessing=Preprocessing(input_size=size))

    def estimate(device: Device) -> Estimate:
        rule = rule_of(options, plan, registry, device, (model, traced))
        again = replace(rule, recomputes=(True, True),
                        keeps_blocks=rule.keeps_blocks or plan.recompute == "none")
        numbered = [(part, number, len(parts)) for number, part in enumerate(parts)]
        return Estimate(
            device, rule.plan.precision,
            tuple(rule.memory(traced, *stage) for stage in numbered),
            tuple(replace(rule, recomputes=(False, False)).activations(traced, *stage)
                  for stage in numbered),
            tuple(again.activations(traced, *stage) for stage in numbered),
            tuple(rule.in_flight(number, len(parts)) for _, number, _ in numbered))

    def costs(trace: Trace, splits: Sequence[str]) -> List[int]:
        return [trace.total("multiply_adds", *part) for part in trace.parts(splits)]

    best = None
    if 1 < len(parts) <= len(block_begins(model, traced)):
        best = balance_of(costs(traced, cheapest_splits(model, traced, len(parts))))
    total = traced.total("multiply_adds", 0, len(traced.calls)) or 1
    stages = tuple(
        Stage(begins_at or "input", traced.total("parameters", *part),
              traced.total("multiply_adds", *part),
              traced.total("multiply_adds", *part) / total, traced.total("stored", *part),
              traced.calls[part[0]].passed_on if begins_at else 3 * size * size)
        for begins_at, part in zip(["", *splits], parts))
    return Pipeline(stages, plan.gradient_accumulation, plan.sharded,
                    tuple(estimate(device) for device in devices), best)


def devices_of(options: TrainOptions, named: Optional[Tuple[str, int]],
               registry: Registry) -> List[Device]:
    """Return the devices for which memory is estimated: all IPUs, and a GPU of a given size.

    Args:
        options: of the training.
        named: see `PlanOptions.device`.
        registry: where the backend is looked up.
    """
    if named and not named[0]:
        first = Device(f"GPU of {named[1] / 1e9:g} GB", GPU, named[1])
    elif named:
        first = GENERATIONS[key(named[0])]
    else:
        first = device_of(options, registry) or MK2
    return [first, *(device for device in GENERATIONS.values() if device is not first)]
