"""Plans a training from its options without compiling, downloading or reading anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, List, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import check_offer
from ipucnn.core.names import key
from ipucnn.core.options.owners import AUTO
from ipucnn.core.registry.records import KINDS, BackendSpec, DatasetSpec, ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.showing import Blocks, Facts, Shown, Table
from ipucnn.models.balance import with_balanced_splits
from ipucnn.planning.options import PlanOptions
from ipucnn.planning.stages import Pipeline, pipeline_of, table_of
from ipucnn.training.idle_options import notes_on_idle
from ipucnn.training.options import TrainOptions
from ipucnn.training.outline import (
    accumulation_notes,
    endless_epoch,
    fine_tuning_plan,
    reduction_note,
)


@dataclass(frozen=True, repr=False)
class TrainingPlan(Shown):
    """A training as planned from its options.

    Attributes:
        options: of the training.
        plan: execution plan of one host call, over all instances.
        fine_tuning: the plan of the fine-tuning after a half-resolution training.
        epoch_samples: samples per epoch, where the dataset's record states it.
        launch: the system to launch on.
        pipeline: its stages; None for a model that cannot be followed without computing.
        notes: notes for the user.
    """

    options: TrainOptions
    plan: ExecutionPlan
    fine_tuning: Optional[ExecutionPlan]
    epoch_samples: Optional[int]
    launch: PlanOptions
    pipeline: Optional[Pipeline] = None
    notes: Tuple[str, ...] = ()

    @property
    def ipus(self) -> int:
        """The number of reserved IPUs: they are allocated in powers of two."""
        return 1 << (self.plan.devices - 1).bit_length()

    @property
    def need(self) -> str:
        """Replicas and stages as text, for messages."""
        return f"{self.plan.replicas} replicas of {self.plan.stages} pipeline stages"

    def as_dict(self) -> Dict[str, Any]:
        """Return the plan as plain types, with the keys of a training's result."""
        options, launch = self.options, self.launch
        return {
            "format": "ipucnn.plan/1", "model": options.network.model,
            "dataset": options.dataset.data, "backend": options.execution.backend,
            "plan": self.plan.algebra(), "learning_rate": self._rate(),
            "begins_at": ["input", *self.plan.pipeline_splits],
            "fine_tuning": self.fine_tuning.algebra() if self.fine_tuning else None,
            "epoch_samples": self.epoch_samples,
            "pipeline": self.pipeline.as_dict() if self.pipeline else None,
            "ipus": {"used": self.plan.devices, "reserved": self.ipus},
            "launch": {"profile": launch.launch, "hosts": launch.host_count,
                       "instances": self.plan.instances,
                       "replicas_per_instance": self.plan.local_replicas}}

    def document(self) -> Dict[str, Any]:
        """Return the plan with the options as plain types, for a file and a report."""
        return {**self.as_dict(), "options": self.options.as_dict(), "notes": list(self.notes)}

    def facts(self) -> Facts:
        """Return the plan as names and values, for people."""
        options, plan, launch = self.options, self.plan, self.launch
        spare = f", of {self.ipus:,} reserved (they are allocated in powers of two)"
        lines: Facts = [
            ("model", options.network.model), ("data", options.dataset.data),
            ("precision", plan.precision),
            ("replicas", plan.replicas),
            ("stages in turn" if plan.sharded else "pipeline stages", plan.stages),
            ("they begin at", ["input", *plan.pipeline_splits] if plan.pipeline_splits else None),
            ("IPUs", f"{plan.devices:,}" + (spare if self.ipus != plan.devices else "")),
            ("hosts", launch.host_count),
            ("instances", plan.instances),
            ("replicas per instance", self.plan.local_replicas),
            ("epoch", self.epoch_samples and f"{self.epoch_samples:,} generated samples"),
            ("learning rate", reduction_note(options) or options.optimisation.lr),
            *_algebra(plan)]
        if self.fine_tuning:
            lines += [(f"fine-tuning: {name}", value) for name, value in _algebra(self.fine_tuning)]
        return lines

    def _rate(self) -> Optional[Dict[str, float]]:
        """Return the learning rate, and that of the same steps with the mean gradient."""
        lr = self.options.optimisation.lr
        if lr is None:
            return None
        return {"lr": lr, "of_mean_gradient": lr * self.plan.gradient_factor}

    def blocks(self) -> Blocks:
        """Return the facts and the stages; see `Shown`."""
        return [self.facts(), *([Table(*table_of(self.pipeline))] if self.pipeline else [])]

    def records(self) -> List[Dict[str, Any]]:
        """Return one row: the plan as plain types."""
        return [self.as_dict()]


def _algebra(plan: ExecutionPlan) -> Facts:
    return [
        ("micro-batch", plan.micro_batch),
        ("gradient accumulation", plan.gradient_accumulation),
        ("device iterations", plan.device_iterations),
        ("samples per weight update", plan.update_batch),
        ("samples per host call", plan.combined_batch)]


def plan_training(options: TrainOptions, launch: PlanOptions, registry: Registry) -> TrainingPlan:
    """Return the plan of a training with these options.

    A named backend need not be usable here, but must support the requested features.

    Raises:
        UsageError: an unknown name, a training that no backend can execute, that its instances
            cannot share, or that needs more IPUs than there are.
    """
    for kind in ("model", "norm-layer", "optimizer", "lr-schedule"):
        registry.get(kind, options.get(KINDS[kind].selector))
    if options.network.input_size is not None:
        registry.get_typed(ModelSpec, options.network.model).check_input_size(
            options.network.input_size)
    data = registry.get_typed(DatasetSpec, options.dataset.data)
    options = with_balanced_splits(options, registry)
    plan = options.plan(synthetic=data.on_device)
    second = fine_tuning_plan(options, data.on_device) \
        if options.half_resolution.half_res_training else None
    plan = replace(plan, instances=launch.instances_for(plan.replicas))
    backend = options.execution.backend
    if key(backend) != AUTO:
        check_offer(options, plan, registry.get_typed(BackendSpec, backend), registry)
    notes, pipeline = notes_on_idle(options, data, registry), None
    try:
        pipeline = pipeline_of(options, plan, registry)
    except UsageError as error:
        if plan.pipeline_splits:
            raise
        notes.append(f"its stages are not known: {error.message}")
    made = TrainingPlan(options, plan, second,
                        None if data.finite else endless_epoch(options, plan), launch, pipeline,
                        (*notes, *accumulation_notes(options)))
    _check_fit(made)
    return made


def _check_fit(made: TrainingPlan) -> None:
    available, stages = made.launch.ipus, made.plan.stages
    if available is None or made.ipus <= available:
        return
    fitting = (1 << (available.bit_length() - 1)) // stages  # replicas on reservable IPUs
    way = (f"use '--replicas {fitting}', and more '--gradient-accumulation' for the same samples "
           "per update, or a larger system" if fitting else
           "use fewer '--pipeline-splits', or a larger system")
    raise UsageError(f"{made.need} need {made.ipus} IPUs, and {made.launch.system} has "
                     f"{available}", f"{way}: 'ipucnn config list' shows the launch profiles")
