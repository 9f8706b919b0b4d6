"""The training of the backend; imported with it."""

from __future__ import annotations

import copy
import math
from typing import Any, Dict, List, Optional, Tuple

import torch
from ipucnn.plugin import (
    ExecutionPlan,
    Mixing,
    NonFiniteLoss,
    StateDict,
    StepResult,
    TrainingBatch,
    TrainingSession,
    TrainingSetup,
    is_correct,
    make_optimizer,
    mix_images,
    normalise,
    set_rate,
)

from ipucnn_frozen_backend.backend import FrozenBackendBackend


class FrozenBackendTrainingBackend(FrozenBackendBackend):
    """The backend with training; it validates by the inference of its base class."""

    def training(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int) -> TrainingSession:
        """Return a session; plans that the record does not offer were refused before."""
        return FrozenBackendTrainingSession(model, plan, setup, input_size)


class FrozenBackendTrainingSession(TrainingSession):
    """Computes one micro-batch after another; replicas take turns, each with its own buffers."""

    def __init__(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int) -> None:
        self._model, self._plan, self._setup, self._size = model.train(), plan, setup, input_size
        self._optimizer = make_optimizer(model, setup.optimizer, setup.rate_factors)
        self._buffers = [self._read() for _ in range(plan.replicas)]
        self.facts: Dict[str, Any] = {"arithmetic": "float32, eager"}

    def compile(self) -> float:
        """Return 0 seconds: nothing is compiled."""
        return 0.0

    def set_rates(self, lr: float, loss_scaling: float) -> None:
        """Set the learning rate; single precision needs no loss scaling."""
        set_rate(self._optimizer, lr)

    def step(self, batch: TrainingBatch, update: int) -> StepResult:
        """Make the weight updates of a combined batch, of which `update` is the first."""
        plan = self._plan
        images, labels = self._pixels(batch.images), batch.labels
        if labels is None:
            labels = torch.zeros(plan.combined_batch, dtype=torch.int64)
        losses: List[float] = []
        correct = 0
        per_update = plan.gradient_accumulation * plan.replicas
        for number in range(plan.device_iterations):
            rows = slice(number * plan.update_batch, (number + 1) * plan.update_batch)
            mixing = batch.mixing and batch.mixing.part(
                number * per_update, per_update, plan.micro_batch)
            found = self._update(images[rows], labels[rows], mixing, update + number)
            if found is not None:
                losses.append(found[0])
                correct += found[1]
        mean = sum(losses) / len(losses) if losses else 0.0
        return StepResult(mean, plan.update_batch * len(losses), correct, tuple(losses),
                          plan.device_iterations - len(losses))

    def weights(self, ema: bool = False) -> StateDict:
        """Return the weights; the record offers no moving average."""
        self._enter(0)
        return {name: value.detach().clone() for name, value in self._model.state_dict().items()}

    def state(self) -> Dict[str, Any]:
        """Return what a restored training needs beside the weights."""
        self._enter(0)
        return {"optimizer": copy.deepcopy(self._optimizer.state_dict()),
                "buffers": copy.deepcopy(self._buffers)}

    def load(self, weights: StateDict, state: Dict[str, Any],
             ema: Optional[StateDict] = None) -> None:
        """Continue from what `weights` and `state` returned."""
        self._model.load_state_dict(weights)
        first = self._read()
        saved = [first, *state["buffers"][1:]]
        self._buffers = [copy.deepcopy(saved[replica] if replica < len(saved) else first)
                         for replica in range(self._plan.replicas)]
        settings = [{name: value for name, value in group.items() if name != "params"}
                    for group in self._optimizer.param_groups]
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        for group, own in zip(self._optimizer.param_groups, settings):
            group.update(own)  # the options of the restored training take precedence

    def _update(self, images: torch.Tensor, labels: torch.Tensor, mixing: Optional[Mixing],
                update: int) -> Optional[Tuple[float, int]]:
        """Make one update; return its loss and its hits, or None if it was skipped."""
        plan, size = self._plan, self._plan.micro_batch
        count = len(images) // size
        before = copy.deepcopy(self._buffers)
        total, hits = 0.0, 0
        if mixing is not None:
            images = mix_images(images, mixing, size)
        self._optimizer.zero_grad()
        with torch.random.fork_rng(devices=[]):
            # what is random (dropout) depends on the seed and the update, so restoring repeats it
            torch.manual_seed((plan.seed or 0) * 1_000_003 + update)
            for number in range(count):
                rows = slice(number * size, (number + 1) * size)
                replica = number % plan.replicas
                self._enter(replica)
                logits = self._model(images[rows])
                loss = self._setup.loss(logits, labels[rows],
                                        mixing and mixing.part(number, 1, size), size)
                (loss / count).backward()
                self._buffers[replica] = self._read()
                total += float(loss.detach()) / count
                hits += int(is_correct(logits.detach(), labels[rows]).sum())
        finite = all(bool(torch.isfinite(p.grad).all()) for p in self._model.parameters()
                     if p.grad is not None)
        if not (math.isfinite(total) and finite):
            if not self._setup.tolerate_non_finite:
                raise NonFiniteLoss(update, total, gradients=math.isfinite(total))
            self._buffers = before
            return None
        self._optimizer.step()
        return total, hits

    def _pixels(self, images: Optional[torch.Tensor]) -> torch.Tensor:
        if images is None:  # synthetic data: made on the device
            images = torch.zeros(self._plan.combined_batch, 3, self._size, self._size)
        if self._plan.normalisation == "device":
            images = normalise(images, preprocessing=self._plan.preprocessing)
        return images.float()

    def _read(self) -> StateDict:
        return {name: value.detach().clone() for name, value in self._model.named_buffers()}

    def _enter(self, replica: int) -> None:
        for name, value in self._model.named_buffers():
            value.copy_(self._buffers[replica][name])
