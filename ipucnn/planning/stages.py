"""What each pipeline stage of a training computes and passes on.

It follows from the shapes of the model, which is called on the meta device. Whether a stage fits
the memory of an IPU depends on what the compiler stores and recomputes, and is not estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Sequence, Tuple

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.training.options import TrainOptions


@dataclass(frozen=True)
class Stage:
    """One pipeline stage.

    Attributes:
        begins_at: path of its first module; `input` for the first stage.
        parameters: number of its weights.
        multiply_adds: for one image, of convolutions and linear layers.
        share: of the model's multiply-adds.
        activations: output values of its layers, for one image.
        inputs: values that it receives, for one image.
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
class Pipeline:
    """The stages of a training, and how well they are used.

    Attributes:
        stages: in order of execution.
        micro_batches: per weight update and replica.
    """

    stages: Tuple[Stage, ...]
    micro_batches: int

    @property
    def balance(self) -> float:
        """Mean over largest multiply-adds of a stage: 1 if all take as long as each other."""
        largest = max(stage.multiply_adds for stage in self.stages)
        total = sum(stage.multiply_adds for stage in self.stages)
        return total / len(self.stages) / largest if largest else 1.0

    @property
    def fill(self) -> float:
        """Share of the time in which a stage has work: G / (G + stages - 1).

        Source: Huang et al., "GPipe" (2019), section 2.3: bubbles of (stages - 1) of
        (G + stages - 1) steps.
        """
        return self.micro_batches / (self.micro_batches + len(self.stages) - 1)

    @property
    def use(self) -> float:
        """Share of the devices' time in which they compute: fill times balance."""
        return self.fill * self.balance

    def as_dict(self) -> Dict[str, Any]:
        """Return the stages as plain types."""
        return {"stages": [stage.as_dict() for stage in self.stages],
                "balance": round(self.balance, 4), "fill": round(self.fill, 4)}


def pipeline_of(options: TrainOptions, plan: ExecutionPlan, registry: Registry) -> Pipeline:
    """Return the stages of a training.

    Args:
        options: of the training.
        plan: of the training; its splits are resolved as a run resolves them.
        registry: where names are looked up.

    Raises:
        UsageError: a split is not valid, or the model cannot be followed.
    """
    from ipucnn.models.build import outline
    from ipucnn.models.tracing import costs, outputs, resolve_splits

    spec = registry.get_typed(ModelSpec, options.network.model)
    size = options.network.input_size or spec.input_size
    model = outline(spec, registry, options.plugins.of("model", spec.name),
                    options.network.num_classes)
    splits = resolve_splits(model, plan.pipeline_splits, size)
    begun = ["", *splits]
    order: Dict[str, int] = {}
    operations, activations = [0] * len(begun), [0] * len(begun)
    stage = 0
    for path, cost in costs(model, size):
        if stage + 1 < len(begun) and path == begun[stage + 1]:
            stage += 1
        order.setdefault(path, stage)
        operations[stage] += cost
    inputs, last = [3 * size * size], 0
    for path, values in outputs(model, size):
        while len(inputs) <= order[path]:
            inputs.append(last)
        activations[order[path]] += values
        last = values
    inputs += [last] * (len(begun) - len(inputs))
    weights = [0] * len(begun)
    for name, parameter in model.named_parameters():
        weights[order.get(name.rpartition(".")[0].replace(".", "/"), 0)] += parameter.numel()
    total = sum(operations) or 1
    return Pipeline(tuple(
        Stage(begin or "input", weights[number], operations[number], operations[number] / total,
              activations[number], inputs[number])
        for number, begin in enumerate(begun)), plan.gradient_accumulation)


def table_of(pipeline: Pipeline) -> Tuple[Sequence[str], List[List[str]]]:
    """Return the headings and rows of the stages, for people."""
    headings = ("begins at", "parameters", "multiply-adds", "share", "inputs", "layers' outputs")
    return headings, [[stage.begins_at, f"{stage.parameters:,}",
                       f"{stage.multiply_adds / 1e6:,.0f} M", f"{100 * stage.share:.1f} %",
                       f"{stage.inputs:,}", f"{stage.activations:,}"]
                      for stage in pipeline.stages]
