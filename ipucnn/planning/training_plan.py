"""Plans a training from its options without compiling, downloading or reading anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Dict, List, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.launching import launcher_named
from ipucnn.core.execution.offers import check_offer
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.names import key
from ipucnn.core.options.composition import common_options, default_of
from ipucnn.core.options.owners import AUTO
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.records import BackendSpec, DatasetSpec, ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.showing import Blocks, Facts, Shown
from ipucnn.models.stage_memory import device_of
from ipucnn.planning.options import IPU_LAUNCHER, PlanOptions
from ipucnn.planning.stages import Pipeline, devices_of, pipeline_of
from ipucnn.planning.times import Times, times_of
from ipucnn.planning.warnings import warnings
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.defaults import OF_IMAGES, foreseen_size, size_note
from ipucnn.training.setup.idle_options import notes_on_idle
from ipucnn.training.setup.outline import (
    accumulation_notes,
    endless_epoch,
    fine_tuning_plan,
    limited_epoch,
    reduction_note,
)


@dataclass(frozen=True, repr=False)
class TrainingPlan(Shown):
    """A training as planned from its options.

    Attributes:
        options: of the training.
        plan: execution plan of one host call, over all instances.
        fine_tuning: the plan of the fine-tuning after a half-resolution training.
        epoch_samples: samples per epoch, where they are known.
        launch: the system to launch on.
        times: samples, and times at a measured rate.
        pipeline: its stages; None for a model that cannot be traced.
        notes: notes for the user.
        on_ipus: whether it may run on IPUs, according to its backend and launcher.
    """

    options: TrainOptions
    plan: ExecutionPlan
    fine_tuning: Optional[ExecutionPlan]
    epoch_samples: Optional[int]
    launch: PlanOptions
    times: Times
    pipeline: Optional[Pipeline] = None
    notes: Tuple[str, ...] = ()
    on_ipus: bool = True

    @property
    def ipus(self) -> int:
        """The number of reserved devices: IPUs are allocated in powers of two."""
        if not self.on_ipus:
            return self.plan.devices
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
            "epoch_samples": self.epoch_samples, "times": self.times.as_dict(),
            "pipeline": self.pipeline.as_dict() if self.pipeline else None,
            "ipus": {"used": self.plan.devices, "reserved": self.ipus},
            "launch": {"profile": launch.launch, "hosts": launch.host_count,
                       "instances": self.plan.instances,
                       "replicas_per_instance": self.plan.local_replicas}}

    def document(self) -> Dict[str, Any]:
        """Return the plan with the options as plain types, for a file and a report."""
        return {**self.as_dict(), "options": self.options.recorded(), "notes": list(self.notes)}

    def facts(self) -> Facts:
        """Return the plan as names and values, as text."""
        options, plan, launch = self.options, self.plan, self.launch
        spare = f", of {self.ipus:,} reserved (they are allocated in powers of two)"
        lines: Facts = [
            ("model", options.network.model), ("data", options.dataset.data),
            ("precision", plan.precision),
            ("replicas", plan.replicas),
            ("stages in turn" if plan.sharded else "pipeline stages", plan.stages),
            ("they begin at", ["input", *plan.pipeline_splits] if plan.pipeline_splits else None),
            ("IPUs" if self.on_ipus else "devices",
             f"{plan.devices:,}" + (spare if self.ipus != plan.devices else "")),
            ("hosts", launch.host_count),
            ("instances", plan.instances),
            ("replicas per instance", self.plan.local_replicas),
            ("learning rate", reduction_note(options) or options.optimisation.lr),
            *_algebra(plan), *self.times.facts()]
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
        return [self.facts(), *(self.pipeline.tables() if self.pipeline else [])]

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


def plan_training(options: TrainOptions, launch: PlanOptions, registry: Registry,
                  launcher: Optional[Tuple[str, Any]] = None, stages: bool = True
                  ) -> TrainingPlan:
    """Return the plan of a training with these options.

    A named backend need not be usable here, but must support the requested features.

    Args:
        options: of the training.
        launch: the system.
        registry: where names are looked up.
        launcher: name and options of the launcher, where one is named.
        stages: also estimate the computation and memory of each stage, which imports torch.

    Raises:
        UsageError: an unknown name, a training that no backend can execute, that its instances
            cannot share, or that needs more IPUs than there are.
    """
    if options.execution.measured:
        raise UsageError("'--batch-size auto' cannot be used with 'plan', which measures nothing",
                         "give a number, or leave it out")
    for kind in ("model", "norm-layer", "optimizer", "lr-schedule"):
        registry.get(kind, options.get(KINDS[kind].selector))
    spec = registry.get_typed(ModelSpec, options.network.model)
    if options.network.input_size is not None:
        spec.check_input_size(options.network.input_size)
    data = registry.get_typed(DatasetSpec, options.dataset.data)
    size = foreseen_size(options, data, spec)
    named = launch.device
    devices = devices_of(options, named, registry)
    if options.execution.pipeline_splits:
        from ipucnn.models.balance import with_balanced_splits

        options = with_balanced_splits(options, registry, devices[0] if named else None, size)
    options, instances = _shared(options, launch, launcher)
    plan = options.plan(synthetic=data.on_device)
    second = fine_tuning_plan(options, data.on_device) \
        if options.half_resolution.half_res_training else None
    plan = replace(plan, instances=instances or launch.instances_for(plan.replicas),
                   preprocessing=Preprocessing(input_size=size))
    backend = options.execution.backend
    if key(backend) != AUTO:
        check_offer(options, plan, registry.get_typed(BackendSpec, backend), registry)
    notes, pipeline = [*notes_on_idle(options, data, registry), *_unread(options, data)], None
    if options.network.input_size is None and size < spec.input_size \
            and not options.half_resolution.half_res_training:
        notes.append(size_note(size, spec.input_size))
    try:
        if stages or plan.pipeline_splits:
            pipeline = pipeline_of(options.with_values(input_size=size), plan, registry, devices)
    except UsageError as error:
        if plan.pipeline_splits or plan.recompute_checkpoints:
            raise
        notes.append(f"its stages are not known: {error.message}")
    samples = launch.samples or data.train_samples or None
    epoch = limited_epoch(options, plan, samples) if data.finite else endless_epoch(options, plan)
    times = times_of(plan, epoch, options.optimisation.epochs, launch.rate)
    made = TrainingPlan(options, plan, second, epoch, launch, times, pipeline,
                        (*notes, *accumulation_notes(options),
                         *warnings(options, plan, registry, pipeline if named else None)),
                        (launcher is None or launcher[0] == IPU_LAUNCHER) and (
                            key(backend) == AUTO or device_of(options, registry) is not None))
    _check_fit(made)
    return made


def _unread(options: TrainOptions, data: DatasetSpec) -> List[str]:
    """Return the note about the options that a training chooses from the images of a folder."""
    place = options.dataset.data_dir
    unset = [f"'{item.flag}'" for item in common_options(TrainOptions) if item.name in OF_IMAGES
             and options.get(item.name) is None]
    if not place or not unset or not data.reads_folder or data.train_samples:
        return []
    return [f"the images in {place!r} are not read: 'train' chooses {', '.join(unset)} from "
            "them"]


def _shared(options: TrainOptions, launch: PlanOptions, launcher: Optional[Tuple[str, Any]]
            ) -> Tuple[TrainOptions, Optional[int]]:
    """Return the options with the replicas of a launcher's processes, and the instances.

    The instances are None if `launch` determines them: if it states them, and for `poprun`.
    Other launchers start a process for each replica, or for each of its stages.
    """
    if launcher is None or launcher[0] == IPU_LAUNCHER or launch.instances:
        return options, None
    plan, engine = options.plan(False), launcher_named(*launcher)
    count, stages = engine.processes(), plan.stages if plan.pipelined else 1
    if count is None:
        return options, plan.replicas
    if engine.hosts() == 1:  # the processes of each host
        count *= launch.host_count
    if count % stages:
        raise UsageError(f"{stages} pipeline stages cannot be divided among {count} processes",
                         f"start a multiple of {stages}, or use other '--pipeline-splits'")
    groups = count // stages
    if options.execution.replicas == default_of(TrainOptions, "replicas"):
        options = options.with_values(replicas=groups)
    return options, groups


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
