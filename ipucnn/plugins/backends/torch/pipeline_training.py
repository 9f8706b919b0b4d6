"""The training session of a process that holds one pipeline stage."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

import torch

from ipucnn.core.execution.accuracy import is_correct
from ipucnn.core.execution.losses import of_micro_batch
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import (
    StateDict,
    StepResult,
    TrainingBatch,
    TrainingSetup,
)
from ipucnn.data.mixup import mix_images
from ipucnn.models.batch_dependence import norm_errors
from ipucnn.models.optimisation import (
    CHANGED,
    optimizer_of,
    optimizer_state,
    parameter_groups,
)
from ipucnn.plugins.backends.torch.data_parallel import DataParallel
from ipucnn.plugins.backends.torch.devices import Device
from ipucnn.plugins.backends.torch.errors import device_errors
from ipucnn.plugins.backends.torch.gradients import unscale
from ipucnn.plugins.backends.torch.options import TorchOptions
from ipucnn.plugins.backends.torch.pipeline import Pipeline, StageModule, cut, tried
from ipucnn.plugins.backends.torch.replicas import on_host
from ipucnn.plugins.backends.torch.stage_processes import StageProcesses
from ipucnn.plugins.backends.torch.training import TorchTrainingSession


class PipelineTrainingSession(TorchTrainingSession):
    """Trains one stage; other processes train the other stages.

    The processes of the first stage receive the images and labels, those of the last stage compute
    the loss. All execute the same updates at the same time, and skip the same ones.
    """

    def __init__(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int, device: Device, options: TorchOptions) -> None:
        self._line = StageProcesses(plan, device)
        self._labels: Optional[torch.Tensor] = None
        self._mixing: Any = None
        self._losses: List[torch.Tensor] = []
        self._hits: List[torch.Tensor] = []
        super().__init__(model, plan, setup, input_size, device, options)
        self.facts["stage_processes"] = self._line.stages
        self.facts["pipeline_schedule"] = options.pipeline_schedule

    # -- the part of the model ------------------------------------------------------------------

    def _processes(self, plan: ExecutionPlan, device: Device) -> DataParallel:
        del plan, device
        return self._line

    def _own(self, model: torch.nn.Module, splits: List[str]) -> torch.nn.Module:
        self._splits = splits
        parts = cut(self._line, model, splits)
        stage = parts.stage(self._line.stage).train()
        whole = model.state_dict()
        used = {name for names in parts.names for name in names}
        # layers that are never called keep their values; the first process saves them
        self._idle = {
            name: (value.float() if value.is_floating_point() else value).cpu().clone()
            for name, value in whole.items() if name not in used}
        self._kinds = {name: (value.shape, value.dtype) for name, value in whole.items()}
        self._stage = StageModule(stage, self._line.is_last)
        self._stage.around = self._around
        return stage

    def _made_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Return the optimizer of this stage, with the groups of the whole model's."""
        setup = self._setup
        groups = parameter_groups(model, setup.optimizer.weight_decay, setup.rate_factors,
                                  setup.head)
        name_of = {id(parameter): name for name, parameter in model.named_parameters()}
        own = {id(parameter) for parameter in self._model.parameters()}
        self._groups = [[name_of[id(parameter)] for parameter in group["params"]]
                        for group in groups]
        kept = []
        self._own_groups: List[int] = []
        for number, group in enumerate(groups):
            mine = [parameter for parameter in group["params"] if id(parameter) in own]
            if mine:
                kept.append({**group, "params": mine})
                self._own_groups.append(number)
        self._own_names = [[name_of[id(parameter)] for parameter in group["params"]]
                           for group in kept]
        if not kept:  # all its layers are frozen
            kept = [{"params": [torch.nn.Parameter(torch.zeros(1))], "weight_decay": 0.0}]
        return optimizer_of(kept, setup.optimizer)

    # -- before the first update ----------------------------------------------------------------

    def compile(self) -> float:
        """Call every stage once to determine the shapes of its inputs."""
        started = time.perf_counter()
        plan, line = self._plan, self._line
        images = self._example(plan.micro_batch)[0] if line.is_first else None
        random = []
        with self._undisturbed():
            def call(inputs: Tuple[torch.Tensor, ...]) -> Any:
                if not line.is_first:
                    inputs = tuple(value.requires_grad_() for value in inputs)
                before = self._generators.state()
                with device_errors(plan.micro_batch):
                    self._stage.begin()
                    found = self._stage(*inputs)
                    random.append(not torch.equal(before, self._generators.state()))
                    outputs = [found] if isinstance(found, torch.Tensor) else list(found)
                    if line.groups > 1:
                        torch.autograd.backward(
                            outputs, [torch.zeros_like(value) for value in outputs])
                        self._unused = any(
                            parameter.grad is None for parameter in self._model.parameters()
                            if parameter.requires_grad)
                        self._optimizer.zero_grad(set_to_none=True)
                return found

            self._tensors_of_stage = tried(line, self._splits, images, call, self._device.place)
        # each stage has separate random numbers, unless no earlier one draws any
        self._generators.salt = sum(line.flags(bool(random and random[0]))[:line.stage])
        self._forward = self._stage
        self._module = self._stage
        self._wrap()
        return time.perf_counter() - started

    def _wrap(self) -> None:
        super()._wrap()
        plan = self._plan
        self._pipeline = Pipeline(
            self._line, self._forward, self._stage,  # type: ignore[arg-type]
            self._tensors_of_stage, plan.gradient_accumulation * plan.replicas,
            (self._options.pipeline_schedule, self._weighted))

    @contextmanager
    def _around(self, number: int) -> Iterator[None]:
        """Prepare for a micro-batch: its replica's buffers, its random numbers, its precision."""
        self._replicas.enter(number % self._plan.replicas)
        self._generators.seed(self._number, self._line.number(number))
        with self._precision.compute(), norm_errors(self._plan.micro_batch):
            yield

    _number = 0
    """Number of the current update."""

    # -- updates --------------------------------------------------------------------------------

    def step(self, batch: TrainingBatch, update: int) -> StepResult:
        """Execute D weight updates; see `TrainingSession.step`.

        The samples are those of the first stage's process; the others report none.
        """
        plan, line = self._plan, self._line
        rows = plan.update_batch
        losses: List[float] = []
        correct = skipped = 0
        with line.connected(), device_errors(plan.micro_batch):
            batch = self._shared(batch)
            for number in range(plan.device_iterations):
                part = slice(number * rows, (number + 1) * rows)
                mixing = None if batch.mixing is None else batch.mixing.part(
                    number * rows // plan.micro_batch, rows // plan.micro_batch,
                    plan.micro_batch).to(self._device.place)
                images = None
                if batch.images is not None:
                    images = self._prepared(batch.images[part])
                    if mixing is not None:
                        images = mix_images(images, mixing, plan.micro_batch)
                self._labels = None if batch.labels is None else batch.labels[part].to(
                    self._device.place)
                self._mixing = mixing
                with self._generators.seeded(update + number):
                    loss, hits = self._pipelined(images, update + number)
                if loss is None:
                    skipped += 1
                else:
                    losses.append(loss)
                    correct += hits
        if not line.is_first:
            return StepResult(0.0, 0, 0, tuple(losses), skipped)
        mean = sum(losses) / len(losses) if losses else 0.0
        return StepResult(mean, rows * len(losses), correct, tuple(losses), skipped)

    def _shared(self, batch: TrainingBatch) -> TrainingBatch:
        """Return the part of a batch for this stage; labels and mixing are for the last stage."""
        line = self._line
        if self._synthetic is not None:
            made = self._synthetic
            return TrainingBatch(made.images if line.is_first else None, made.labels)
        if line.is_first:
            line.send((batch.labels, batch.mixing), line.stages - 1)
            return batch
        if line.is_last:
            labels, mixing = line.receive(0)
            return TrainingBatch(None, labels, mixing)
        return TrainingBatch(None, None)

    def _pipelined(self, images: Optional[torch.Tensor],
                   update: int) -> Tuple[Optional[float], int]:
        """Execute one update; return its mean loss (None if skipped) and correct predictions."""
        line = self._line
        before = self._replicas.snapshot() if self._setup.tolerate_non_finite else None
        self._number = update
        self._optimizer.zero_grad(set_to_none=True)
        self._precision.begin_update()
        self._losses, self._hits = [], []
        self._pipeline(images)
        self._precision.before_optimizer()
        self._replicas.enter(0)
        overflow = unscale(self._model, self._scaling,
                           self._plan.half or self._setup.tolerate_non_finite)
        loss = float(torch.stack(self._losses).sum()) if self._losses else 0.0
        hits = float(torch.stack(self._hits).sum()) if self._hits else 0.0
        figures = [0.0] * (2 + line.groups)
        figures[0] = loss / line.groups
        figures[1] = 0.0 if overflow is None else float(overflow)
        figures[2 + line.group] = hits
        figures = line.sums(figures)
        value = self._finished(update, before, figures[0], figures[1] > 0)
        return value, int(figures[2 + line.group])

    def _weighted(self, logits: torch.Tensor, number: int) -> torch.Tensor:
        """Return the loss of a micro-batch, times its weight in the update."""
        plan, size = self._plan, self._plan.micro_batch
        count = plan.gradient_accumulation * plan.replicas
        assert self._labels is not None
        labels = self._labels[number * size:(number + 1) * size]
        mixing = None if self._mixing is None else self._mixing.part(number, 1, size)
        loss = of_micro_batch(self._setup.loss, logits, labels, mixing, size)
        self._losses.append(loss.detach() / count)
        if self._setup.metrics:
            self._hits.append(is_correct(logits.detach(), labels).sum())
        return loss * (self._scaling * plan.gradient_factor / count)

    # -- weights and state ----------------------------------------------------------------------

    def weights(self, ema: bool = False) -> StateDict:
        """Return the weights of all stages in the first process; see `TrainingSession.weights`.

        In other processes, only those of their stage are set.
        """
        own = super().weights(ema)
        found = self._line.gather(own if self._line.group == 0 else {})
        parts: StateDict = dict(self._idle)
        for part in [own] if found is None else found:
            parts.update(part)
        return {name: parts[name] if name in parts else torch.zeros(
            shape, dtype=torch.float32 if kind.is_floating_point else kind)
            for name, (shape, kind) in self._kinds.items()}

    def state(self) -> Dict[str, Any]:
        """Return the state of all stages in the first process; see `TrainingSession.state`."""
        state = super().state()
        for buffers in state["replica_buffers"]:
            buffers.update(self._idle)
        return state

    def _loaded(self, weights: StateDict) -> None:
        self._idle = {name: weights[name] for name in self._idle}
        own = self._model.state_dict()
        self._model.load_state_dict({name: weights[name] for name in own})

    def _optimizer_state(self) -> Dict[str, Any]:
        """Return the state of the whole model's optimizer in the first process."""
        own = on_host(optimizer_state(self._optimizer)) if self._own_groups else {
            "state": {}, "param_groups": []}
        names = [name for group in self._own_names for name in group]
        found = self._line.gather({
            "state": {names[number]: value for number, value in own["state"].items()},
            "groups": dict(zip(self._own_groups, own["param_groups"])),
            CHANGED: own.get(CHANGED, [])}
            if self._line.group == 0 else None)
        if found is None:
            return dict(own)
        state: Dict[str, Any] = {}
        settings: Dict[int, Any] = {}
        changed: Set[str] = set()
        for part in found:
            if part is not None:
                state.update(part["state"])
                settings.update(part["groups"])
                changed.update(part[CHANGED])
        index = {name: number for number, name in enumerate(
            name for group in self._groups for name in group)}
        return {
            "state": {index[name]: state[name] for name in index if name in state},
            "param_groups": [{**settings[number], "params": [index[name] for name in group]}
                             for number, group in enumerate(self._groups) if number in settings],
            **({CHANGED: sorted(changed)} if changed else {})}

    def _own_state(self, state: Dict[str, Any]) -> Dict[str, Any]:
        if not self._own_groups:
            return self._optimizer.state_dict()
        if len(state["param_groups"]) != len(self._groups):
            raise ValueError("it has other groups of parameters")
        index = {name: number for number, name in enumerate(
            name for group in self._groups for name in group)}
        names = [name for group in self._own_names for name in group]
        first, groups = 0, []
        for number, own in zip(self._own_groups, self._own_names):
            if len(state["param_groups"][number]["params"]) != len(self._groups[number]):
                raise ValueError("it has other parameters")
            groups.append({**state["param_groups"][number],
                           "params": list(range(first, first + len(own)))})
            first += len(own)
        return {**state, "param_groups": groups, "state": {
            number: state["state"][index[name]] for number, name in enumerate(names)
            if index[name] in state["state"]}}

    def close(self) -> None:
        """Release the model and its device memory."""
        self._pipeline = self._stage = None  # type: ignore[assignment]
        super().close()
