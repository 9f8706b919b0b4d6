"""What a training with given options is, without compiling, downloading or reading anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import check_offer
from ipucnn.core.options import PlanOptions, TrainOptions
from ipucnn.core.registry.records import BackendSpec, DatasetSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.training.outline import endless_epoch, fine_tuning_plan


@dataclass(frozen=True)
class TrainingPlan:
    """A training as its options say it.

    Attributes:
        options: of the training.
        plan: what one host call executes, over all instances.
        fine_tuning: the same of the fine-tuning after a half-resolution training.
        epoch_samples: samples of an epoch, where the dataset's record tells.
        launch: the system it is launched on.
    """

    options: TrainOptions
    plan: ExecutionPlan
    fine_tuning: Optional[ExecutionPlan]
    epoch_samples: Optional[int]
    launch: PlanOptions

    @property
    def ipus(self) -> int:
        """IPUs that are reserved: they are given out in powers of two."""
        return 1 << (self.plan.devices - 1).bit_length()

    @property
    def need(self) -> str:
        """Replicas and stages in words, for messages."""
        return f"{self.plan.replicas} replicas of {self.plan.stages} pipeline stages"

    def as_dict(self) -> Dict[str, Any]:
        """Return it as plain types, in the terms of a training's result."""
        options, launch = self.options, self.launch
        return {
            "format": "ipucnn.plan/1", "model": options.model, "dataset": options.data,
            "backend": options.backend, "plan": self.plan.algebra(),
            "begins_at": ["input", *self.plan.pipeline_splits],
            "fine_tuning": self.fine_tuning.algebra() if self.fine_tuning else None,
            "epoch_samples": self.epoch_samples,
            "ipus": {"used": self.plan.devices, "reserved": self.ipus},
            "launch": {"profile": launch.launch, "hosts": launch.host_count,
                       "instances": self.plan.instances,
                       "replicas_per_instance": self.plan.local_replicas}}


def plan_training(options: TrainOptions, launch: PlanOptions, registry: Registry) -> TrainingPlan:
    """Return what a training with these options is.

    A backend that is named need not be usable here, but must offer what is asked of it.

    Raises:
        UsageError: an unknown name, a training that no backend can execute, that its instances
            cannot share, or that needs more IPUs than there are.
    """
    for kind, name in (("model", options.model), ("norm-layer", options.normlayer),
                       ("optimizer", options.optimizer), ("schedule", options.lr_schedule)):
        registry.get(kind, name)
    data = registry.get_typed(DatasetSpec, options.data)
    plan = options.plan(synthetic=data.on_device)
    second = fine_tuning_plan(options, data.on_device) if options.half_res_training else None
    plan = replace(plan, instances=launch.instances_for(plan.replicas))
    if options.backend != "auto":
        check_offer(options, plan, registry.get_typed(BackendSpec, options.backend), registry)
    made = TrainingPlan(options, plan, second,
                        None if data.finite else endless_epoch(options, plan), launch)
    _check_fit(made)
    return made


def _check_fit(made: TrainingPlan) -> None:
    available, stages = made.launch.ipus, made.plan.stages
    if available is None or made.ipus <= available:
        return
    fitting = (1 << (available.bit_length() - 1)) // stages  # of the IPUs that can be reserved
    way = (f"use '--replicas {fitting}', and more '--gradient-accumulation' for the same samples "
           "per update, or a larger system" if fitting else
           "use fewer '--pipeline-splits', or a larger system")
    raise UsageError(f"{made.need} need {made.ipus} IPUs, and {made.launch.system} has "
                     f"{available}", f"{way}: 'ipucnn config list' shows the launch profiles")
