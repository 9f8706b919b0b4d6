"""The training session: the IPU's execution model on one CPU or GPU."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.accuracy import is_correct
from ipucnn.core.execution.losses import of_micro_batch
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import (
    NonFiniteLoss,
    StateDict,
    StepResult,
    TrainingBatch,
    TrainingSession,
    TrainingSetup,
)
from ipucnn.data.mixup import mix_images
from ipucnn.data.normalisation import normalise
from ipucnn.models.batch_dependence import depends_on_batch, norm_errors
from ipucnn.models.memory_checks import check_layers
from ipucnn.models.optimisation import (
    load_optimizer,
    make_optimizer,
    optimizer_state,
    set_rate,
)
from ipucnn.models.tracing import resolve_splits
from ipucnn.plugins.backends.torch import compiler, memory
from ipucnn.plugins.backends.torch.averages import MovingAverage, tensors_of
from ipucnn.plugins.backends.torch.data_parallel import DataParallel
from ipucnn.plugins.backends.torch.devices import Device
from ipucnn.plugins.backends.torch.errors import (
    device_errors,
    empty_cache,
    out_of_memory,
)
from ipucnn.plugins.backends.torch.freezing import Body
from ipucnn.plugins.backends.torch.generators import Generators
from ipucnn.plugins.backends.torch.gradients import figures_of, unscale
from ipucnn.plugins.backends.torch.options import TorchOptions
from ipucnn.plugins.backends.torch.precision import Precision
from ipucnn.plugins.backends.torch.prefetch import Prefetching
from ipucnn.plugins.backends.torch.recompute import recompute
from ipucnn.plugins.backends.torch.replicas import Buffers, Replicas, on_host
from ipucnn.plugins.backends.torch.settings import ProcessSettings


class TorchTrainingSession(Prefetching, TrainingSession):
    """Runs an update's micro-batches one by one, or together if that is equivalent."""

    def __init__(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int, device: Device, options: TorchOptions) -> None:
        self._parallel = self._processes(plan, device)
        plan = plan.local()
        self._plan, self._setup, self._device = plan, setup, device
        self._options = options
        self._size = input_size
        self._generators = Generators(plan.seed or 0, device.place)
        self._settings = ProcessSettings(device, plan.half, training=True)
        with self._settings.restored_on_error():
            splits = resolve_splits(model.eval(), plan.pipeline_splits, input_size)
            own = self._own(model.train(), splits)
            self._model = own.to(device.place).to(memory_format=torch.channels_last)
            parts = [] if plan.recompute == "none" else recompute(
                model, plan.recompute, plan.recompute_checkpoints)
            synchronised = self._parallel.synchronise(own) if options.sync_batchnorm else 0
            self._precision = Precision(own, plan, device)
            self._precision.end_update()
            self._replicas = Replicas(own, 1 if synchronised else plan.replicas)
            self._optimizer = self._made_optimizer(model)
            self._body = Body(own, setup.head)
            self._average = MovingAverage(own, setup.ema_decay) if setup.ema_decay else None
            self._scaling = setup.loss_scaling
            self._module: Callable[..., Any] = compiler.compiled_for_training(
                own) if options.compile else own
            self._unused = False
            self._forward: Callable[..., torch.Tensor] = own  # until it is compiled
            # with statistics over all replicas, those of this process are computed as one
            self._together = self._least = plan.replicas if synchronised else 1
            self._synthetic = self._made_batch() if plan.synthetic else None
            self.facts: Dict[str, Any] = {
                "arithmetic": self._precision.name, "compiled": options.compile,
                "splits": list(splits), "recomputed": len(parts), "micro_batches_together": 1}
            if splits:
                self.facts["stage_processes"] = 1
            if synchronised:
                self.facts["sync_batchnorm"] = synchronised
            if device.place.type == "cpu":
                self.facts["threads"] = torch.get_num_threads()

    # -- overridden for pipelines in several processes -----------------------------------------

    def _processes(self, plan: ExecutionPlan, device: Device) -> DataParallel:
        return DataParallel(plan, device)

    def _own(self, model: torch.nn.Module, splits: List[str]) -> torch.nn.Module:
        """Return the part of the model that this process trains."""
        del splits
        if self._device.place.type == "cpu":
            check_layers(model, self._plan, self._size)
        return model

    def _made_optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        return make_optimizer(model, self._setup.optimizer, self._setup.rate_factors,
                              self._setup.head)

    def _optimizer_state(self) -> Dict[str, Any]:
        found: Dict[str, Any] = on_host(optimizer_state(self._optimizer))
        return found

    def _own_state(self, state: Dict[str, Any]) -> Dict[str, Any]:
        """Return the optimizer state of this process's part of the model."""
        return state

    # -- the interface --------------------------------------------------------------------------

    def compile(self) -> float:
        """Determine how many micro-batches fit into memory at once."""
        started = time.perf_counter()
        plan = self._plan
        per_update = plan.gradient_accumulation * plan.replicas
        if per_update > 1 and not depends_on_batch(self._model):
            allowed = memory.budget(self._options.available_memory_proportion,
                                    self._device.place)
            with self._undisturbed(), device_errors(plan.micro_batch):
                images, labels = self._example(plan.micro_batch)
                before = self._generators.state()
                kept = memory.kept_bytes(lambda: self._loss(images, labels, None)[0])
                # the random numbers of a micro-batch do not depend on the process
                random = not torch.equal(before, self._generators.state())
            together = 1 if random else max(1, min(per_update, allowed // max(1, kept)))
            if self._options.compile:  # a program is of one shape: without a remainder
                together = next(n for n in range(together, 0, -1) if per_update % n == 0)
            self._together = together
            self.facts["memory_budget_mib"] = allowed >> 20
        self.facts["micro_batches_together"] = self._together
        self._forward = self._module
        if self._options.compile:
            with self._undisturbed(), device_errors(plan.micro_batch):
                images, labels = self._example(plan.micro_batch * self._together)
                compiler.first_call(lambda: self._loss(  # the backward pass is compiled, too
                    images, labels, None)[0].backward())  # type: ignore[no-untyped-call]
                self._optimizer.zero_grad(set_to_none=True)
        if not self._parallel.alone:
            self._unused = self._has_unused()
        self._wrap()
        return time.perf_counter() - started

    def _has_unused(self) -> bool:
        """Return whether a parameter has no gradient after a backward pass."""
        with self._undisturbed(), device_errors(self._plan.micro_batch):
            images, labels = self._example(self._plan.micro_batch)
            self._loss(images, labels, None)[0].backward()  # type: ignore[no-untyped-call]
        unused = any(parameter.grad is None for parameter in self._model.parameters()
                     if parameter.requires_grad)
        self._optimizer.zero_grad(set_to_none=True)
        return unused

    def _wrap(self) -> None:
        with self._parallel.connected():
            self._forward = self._parallel.wrap(self._module, self._unused)

    def set_rates(self, lr: float, loss_scaling: float) -> None:
        """Set learning rate and loss scaling; see `TrainingSession.set_rates`."""
        set_rate(self._optimizer, lr)
        self._scaling = loss_scaling

    def freeze(self, frozen: bool) -> None:
        """Train only the output layer, or all; see `TrainingSession.freeze`."""
        if self._body.freeze(frozen):
            self._wrap()

    def step(self, batch: TrainingBatch, update: int) -> StepResult:
        """Execute D weight updates; see `TrainingSession.step`."""
        plan = self._plan
        if self._synthetic is not None:
            batch = self._synthetic
        assert batch.images is not None
        assert batch.labels is not None
        rows = plan.update_batch
        losses: List[float] = []
        correct = skipped = 0
        with device_errors(plan.micro_batch):
            for number in range(plan.device_iterations):
                part = slice(number * rows, (number + 1) * rows)
                mixing = None if batch.mixing is None else batch.mixing.part(
                    number * rows // plan.micro_batch, rows // plan.micro_batch, plan.micro_batch)
                images = self._prepared(batch.images[part])
                labels = batch.labels[part].to(self._device.place, non_blocking=True)
                if mixing is not None:
                    mixing = mixing.to(self._device.place)
                    images = mix_images(images, mixing, plan.micro_batch).contiguous(
                        memory_format=torch.channels_last)
                with self._generators.seeded(update + number), self._parallel.connected():
                    loss, hits = self._updated(images, labels, mixing, update + number)
                if loss is None:
                    skipped += 1
                else:
                    losses.append(loss)
                    correct += hits
        mean = sum(losses) / len(losses) if losses else 0.0
        return StepResult(mean, rows * len(losses), correct, tuple(losses), skipped)

    def weights(self, ema: bool = False) -> StateDict:
        """Return the weights; see `TrainingSession.weights`."""
        self._replicas.enter(0)
        if not ema or self._average is None:
            return self._saved()
        mine = {name: value.detach().clone() for name, value in self._tensors().items()}
        self._put(self._average.weights())
        try:
            return self._saved()
        finally:
            self._put(mine)

    def state(self) -> Dict[str, Any]:
        """Return optimizer state, replicas' buffers and moving average."""
        return {"optimizer": self._optimizer_state(),
                "replica_buffers": [
                    on_host(buffers)
                    for buffers in self._parallel.all_buffers(self._replicas.snapshot())[1:]],
                "ema_updates": self._average.updates if self._average else 0}

    def load(self, weights: StateDict, state: Dict[str, Any],
             ema: Optional[StateDict] = None) -> None:
        """Continue from saved weights and state; see `TrainingSession.load`."""
        if "replica_buffers" not in state:
            raise IpucnnError("the checkpoint's state is of another backend than 'torch'",
                              "restore it with the '--backend' that wrote it, or start from its "
                              "weights with 'ipucnn train --weights FILE'")
        self._replicas.enter(0)
        if self._average:
            if ema is None:
                raise IpucnnError("the checkpoint has no moving average",
                                  "restore without '--ema-decay'")
            self._loaded(ema)
            self._average.load(state["ema_updates"])
        self._loaded(weights)
        first = self._replicas.snapshot()[0]
        self._replicas.put(self._parallel.own([first, *state["replica_buffers"]]))
        try:
            load_optimizer(self._optimizer, self._own_state(state["optimizer"]))
        except (ValueError, KeyError, IndexError) as error:
            raise IpucnnError(f"the saved state is not of optimizer "
                              f"{self._setup.optimizer.name!r}: {error}",
                              "restore with the options of the training") from error

    def close(self) -> None:
        """Release the model and its device memory."""
        self._synthetic = self._average = None
        self._forward = self._module = self._model = None  # type: ignore[assignment]
        self._optimizer = self._replicas = self._body = None  # type: ignore[assignment]
        self._pinned = self._lane = None
        self._parallel.close()
        self._settings.restore()
        empty_cache(self._device)

    # -- one update ----------------------------------------------------------------------------

    def _updated(self, images: torch.Tensor, labels: torch.Tensor, mixing: Any,
                 update: int) -> Tuple[Optional[float], int]:
        """Execute one update; return its mean loss (None if skipped) and correct predictions."""
        before = self._replicas.snapshot() if self._setup.tolerate_non_finite else None
        value, overflowed, hits = self._computed(images, labels, mixing, update)
        return self._finished(update, before, value, overflowed), hits

    def _computed(self, images: torch.Tensor, labels: torch.Tensor, mixing: Any,
                  update: int) -> Tuple[float, bool, int]:
        """Compute the gradients, with fewer micro-batches at once if memory is insufficient.

        This changes nothing in the model that is not computed again. The optimizer does: what it
        has updated before it runs out of memory cannot be repeated.
        """
        while True:
            try:
                return self._gradients(images, labels, mixing, update)
            except RuntimeError as error:
                if self._together == self._least or not self._parallel.alone \
                        or not out_of_memory(error):
                    raise
            self._optimizer.zero_grad(set_to_none=True)
            self._precision.before_optimizer()
            self._together //= 2
            self.facts["micro_batches_together"] = self._together
            if self._device.place.type == "cuda":
                torch.cuda.empty_cache()

    def _gradients(self, images: torch.Tensor, labels: torch.Tensor, mixing: Any,
                   update: int) -> Tuple[float, bool, int]:
        """Compute the gradients; return mean loss, whether they overflow, and correct ones."""
        plan, size = self._plan, self._plan.micro_batch
        count = len(labels) // size
        self._optimizer.zero_grad(set_to_none=True)
        self._precision.begin_update()
        total: Optional[torch.Tensor] = None
        hits: Optional[torch.Tensor] = None
        mean: Callable[[], torch.Tensor] = lambda: torch.tensor(math.nan)  # noqa: E731
        for first in range(0, count, self._together):
            number = min(self._together, count - first)
            last = first + number == count
            part = slice(first * size, (first + number) * size)
            self._replicas.enter(first % plan.replicas if self._together == 1 else 0)
            self._generators.seed(update, self._parallel.number(first))
            with self._parallel.accumulating(last):
                loss, logits = self._loss(images[part], labels[part],
                                          None if mixing is None
                                          else mixing.part(first, number, size))
                weighted = loss.detach() * (number / count)
                total = weighted if total is None else total + weighted
                if last:
                    mean = self._parallel.mean(total)
                scaled = loss * (self._scaling * plan.gradient_factor * number / count)
                scaled.backward()  # type: ignore[no-untyped-call]
            if self._setup.metrics:
                right = is_correct(logits.detach(), labels[part]).sum()
                hits = right if hits is None else hits + right
        self._precision.before_optimizer()
        self._replicas.enter(0)
        overflow = unscale(self._model, self._scaling,
                           self._plan.half or self._setup.tolerate_non_finite)
        return figures_of(mean(), overflow, hits)

    def _finished(self, update: int, before: Optional[List[Buffers]], value: float,
                  overflowed: bool) -> Optional[float]:
        """Update the weights, or skip the update; return its loss, or None.

        Raises:
            NonFiniteLoss: `tolerate_non_finite` is not set.
        """
        if overflowed or not math.isfinite(value):
            self._optimizer.zero_grad(set_to_none=True)
            if before is None:
                raise NonFiniteLoss(update, value, gradients=math.isfinite(value))
            self._replicas.put(before)
            return None
        self._optimizer.step()
        self._precision.end_update()
        if self._average:
            self._average.update()
        return value

    def _loss(self, images: torch.Tensor, labels: torch.Tensor,
              mixing: Any) -> Tuple[torch.Tensor, torch.Tensor]:
        with self._precision.compute(), norm_errors(self._plan.micro_batch):
            logits = self._forward(images)
        return of_micro_batch(self._setup.loss, logits, labels, mixing,
                              self._plan.micro_batch), logits

    # -- input ---------------------------------------------------------------------------------

    def _prepared(self, images: torch.Tensor) -> torch.Tensor:
        images = images.to(self._device.place, non_blocking=True)
        if self._plan.normalisation == "device":
            images = normalise(images, preprocessing=self._plan.preprocessing)
        return images.float().contiguous(memory_format=torch.channels_last)

    def _example(self, count: int) -> Tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(self._plan.seed or 0)
        images = torch.randn(count, 3, self._size, self._size, generator=generator,
                             dtype=torch.float32)
        labels = torch.zeros(count, dtype=torch.int64)
        place = self._device.place
        return images.to(place).contiguous(memory_format=torch.channels_last), labels.to(place)

    def _made_batch(self) -> TrainingBatch:
        """Return images and labels generated on the device."""
        images, labels = self._example(self._plan.combined_batch)
        if self._plan.normalisation == "device":
            images = (images * 64 + 128).clamp(0, 255)
        return TrainingBatch(images, labels)

    # -- state ---------------------------------------------------------------------------------

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Restore buffers and generators after a trial."""
        before = self._replicas.snapshot()
        with self._generators.seeded(0):
            yield
        self._replicas.put(before)

    def _saved(self) -> StateDict:
        return {name: (value.detach().float() if value.is_floating_point() else value.detach())
                .cpu().clone(memory_format=torch.contiguous_format)
                for name, value in self._model.state_dict().items()}

    def _loaded(self, weights: StateDict) -> None:
        self._model.load_state_dict(weights)

    def _tensors(self) -> Dict[str, torch.Tensor]:
        return tensors_of(self._model)

    @torch.no_grad()
    def _put(self, values: Dict[str, torch.Tensor]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(values[name])
