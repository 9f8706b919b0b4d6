"""The training session: forward, backward and weight update in one program on the device."""

from __future__ import annotations

import logging
import math
import time
import warnings
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Tuple

import poptorch
import torch

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.instances import ALONE
from ipucnn.core.execution.launching import joined
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import (
    NonFiniteLoss,
    StateDict,
    StepResult,
    TrainingBatch,
    TrainingSession,
    TrainingSetup,
)
from ipucnn.core.warning_filters import own_filters
from ipucnn.data.mixup import draw
from ipucnn.models.batch_dependence import norm_errors
from ipucnn.models.optimisation import with_own_settings
from ipucnn.models.surgery import recompute_points
from ipucnn.plugins.backends._ipu.sdk import first_line
from ipucnn.plugins.backends._ipu.settings import PROFILE_FOLDER
from ipucnn.plugins.backends.poptorch.errors import device_errors, release
from ipucnn.plugins.backends.poptorch.optimizers import make_optimizer, set_rates
from ipucnn.plugins.backends.poptorch.options import PopTorchOptions
from ipucnn.plugins.backends.poptorch.programs import (
    TrainingProgram,
    constants_of,
    in_precision,
    place_stages,
)
from ipucnn.plugins.backends.poptorch.settings import (
    returns_sums,
    training_options,
    training_overlap,
)
from ipucnn.plugins.backends.poptorch.worker_processes import FedByProcesses

log = logging.getLogger("ipucnn.poptorch")

_MODEL = "model."


class PopTorchTrainingSession(FedByProcesses, TrainingSession):
    """A call trains on B x D x R x G samples in D updates, without host interaction.

    With several instances, each has and feeds its share of the replicas R.
    """

    def __init__(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int, options: PopTorchOptions) -> None:
        self._plan, self._setup, self._options = plan, setup, options
        self._instances = joined() if plan.instances > 1 else ALONE
        self._compute = torch.float16 if plan.half else torch.float32
        weights = torch.float16 if plan.precision == "16.16" else torch.float32
        constants = constants_of(model, plan, options, setup)
        splits = place_stages(model.eval(), plan, input_size)
        kept = _keep_for_backward(model, plan)
        self._program = TrainingProgram(
            in_precision(model, plan, weights).train(), setup.loss, self._compute,
            plan, setup.metrics, training_overlap(plan, options))
        self._optimizer = make_optimizer(model, setup.optimizer, setup.loss_scaling,
                                         options.loss_velocity_scaling_ratio)
        with device_errors("be prepared for training", plan):
            self._executor = poptorch.trainingModel(
                self._program, training_options(plan, options, setup.metrics, constants),
                self._optimizer)
        self._latency = _Latency()
        self._images = torch.zeros(
            (plan.local_batch, 3, input_size, input_size),
            dtype=torch.uint8 if plan.eight_bit_io else self._compute)
        self.facts: Dict[str, Any] = {
            "weights_type": str(weights).replace("torch.", ""),
            "arithmetic": str(self._compute).replace("torch.", ""), "ipus": plan.devices,
            "recomputed": "by the pipeline" if plan.pipelined and plan.recompute == "none"
            else plan.recompute, "kept_for_backward": kept}
        if splits:
            self.facts["stages_begin_at"] = ["input", *splits]
        if options.profile:
            self.facts["profile"] = PROFILE_FOLDER

    def compile(self) -> float:
        """Compile for the IPUs, or read the program from the cache, and load it."""
        started = time.perf_counter()
        with device_errors("be compiled for training", self._plan), \
                norm_errors(self._plan.micro_batch):
            self._executor.compile(**self._inputs(self._example()))
        return time.perf_counter() - started

    def set_rates(self, lr: float, loss_scaling: float) -> None:
        """Set the rates for the following calls; see `TrainingSession.set_rates`."""
        if set_rates(self._optimizer, lr, loss_scaling):
            with device_errors("take other rates", self._plan):
                self._executor.setOptimizer(self._optimizer)

    def step(self, batch: TrainingBatch, update: int) -> StepResult:
        """Execute one host call; see `TrainingSession.step`.

        With several device iterations the device returns sums over all of them, so that there is no
        loss of each update; without metrics it returns the loss of the last micro-batches only.
        """
        plan = self._plan
        given = self._example() if batch.images is None else batch
        with device_errors("be trained", plan):
            outputs = self._executor(**self._inputs(given))
        self._latency.add(self._executor.getLatency())
        per_replica = plan.device_iterations * plan.gradient_accumulation \
            if returns_sums(self._options, self._setup.metrics) else 1
        loss = float(outputs[0].double().sum()) / (
            plan.local_replicas * per_replica * plan.summed_share)
        if not math.isfinite(loss) and not plan.synthetic:
            raise NonFiniteLoss(update, loss)
        return StepResult(
            loss, plan.local_batch,
            int(outputs[1].double().sum()) if self._setup.metrics and not plan.synthetic else 0,
            (loss,) if plan.device_iterations == 1 else ())

    def device_latency(self) -> Optional[Tuple[float, float, float]]:
        """Return the round trips so far; see `TrainingSession.device_latency`."""
        return self._latency.summary()

    def weights(self, ema: bool = False) -> StateDict:  # noqa: ARG002 - the device averages none
        """Return the weights; see `TrainingSession.weights`."""
        with device_errors("return its weights", self._plan):
            self._executor.copyWeightsToHostIfNeeded()
            state = self._host_state()
        return {name[len(_MODEL):]: (value.float() if value.is_floating_point() else value)
                .detach().clone(memory_format=torch.contiguous_format)
                for name, value in state.items() if name.startswith(_MODEL)}

    def state(self) -> Dict[str, Any]:
        """Return the device's optimizer state and every instance's state of random numbers."""
        with device_errors("return its optimizer state", self._plan):
            return {"optimizer": _plain(self._optimizer.state_dict()),
                    "random": self._instances.gather(
                        [int(word) for word in self._executor.rng_state or ()])}

    def load(self, weights: StateDict, state: Dict[str, Any],
             ema: Optional[StateDict] = None) -> None:  # noqa: ARG002
        """Continue from saved weights and state; see `TrainingSession.load`.

        Every replica gets the running statistics of the first one.
        """
        optimizer = state.get("optimizer", {})
        if "ipu_state" not in optimizer:
            raise IpucnnError("the checkpoint's optimizer state is not of an IPU",
                              "restore it on the backend that wrote it, or start from its weights "
                              "with 'ipucnn train --weights FILE'")
        with device_errors("take saved weights", self._plan):
            try:
                self._optimizer.load_state_dict(with_own_settings(
                    optimizer, self._optimizer, kept=("velocity_scaling",)))
            except (ValueError, KeyError) as error:
                raise IpucnnError(f"the saved state is not of optimizer "
                                  f"{self._setup.optimizer.name!r}: {error}",
                                  "restore with the options of the training") from error
            # a loss that is a module keeps its own tensors
            self._executor.load_state_dict({
                **self._host_state(),
                **{_MODEL + name: value for name, value in weights.items()}})
            self._executor.setOptimizer(self._optimizer)
            random = state.get("random", [])
            if len(random) == self._instances.count and random[self._instances.index]:
                self._set_random(random[self._instances.index])

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Release the IPUs to a validation, then attach again and restore the state."""
        with device_errors("leave the IPUs for validation", self._plan):
            self._executor.detachFromDevice()
        yield
        with device_errors("return to the IPUs after validation", self._plan):
            self._executor.attachToDevice()

    def close(self) -> None:
        """Release the IPUs and the program, and end the worker processes."""
        self.stop_loading()
        release(self._executor)

    def _host_state(self) -> StateDict:
        with own_filters():
            # PopTorch's `state_dict` passes on positional arguments, of which torch 2.0 warns
            warnings.filterwarnings("ignore", "Positional args are being deprecated", UserWarning)
            state: StateDict = self._program.state_dict()
        return state

    def _set_random(self, state: List[int]) -> None:
        """Continue with saved random numbers: a seed, and words for every tile of every replica."""
        try:
            self._executor.rng_state = list(state)
        except poptorch.Error as error:  # it is of other IPUs, or of another number of them
            log.info("random numbers continue from the seed of the checkpoint: %s",
                     first_line(error))
            self._executor.rng_state = list(state[:1])

    def _example(self) -> TrainingBatch:
        """Return a batch of the right shape; a synthetic program uses only its shape."""
        plan, count = self._plan, self._plan.local_batch
        mixing = draw(self._setup.mix, 0, 0, range(count), plan.micro_batch,
                      self._images.shape[2]) if self._setup.mix.enabled else None
        return TrainingBatch(self._images, torch.zeros(count, dtype=torch.int64), mixing)

    def _inputs(self, batch: TrainingBatch) -> Dict[str, torch.Tensor]:
        assert batch.images is not None
        assert batch.labels is not None
        given = {"images": batch.images.to(self._images.dtype).contiguous(),
                 "labels": batch.labels}
        for name in ("coefficients", "boxes", "kept"):
            value = getattr(batch.mixing, name, None)
            if value is not None:
                given[name] = value
        return given


class _Latency:
    """Round trips of all calls; PopTorch reports those of the last one, zero for synthetic data."""

    def __init__(self) -> None:
        self._shortest, self._longest, self._sum, self._calls = math.inf, 0.0, 0.0, 0

    def add(self, last: Tuple[float, float, float]) -> None:
        """Add the result of `getLatency` after a call: (min, max, mean) over its replicas."""
        if last[1] > 0:
            self._shortest = min(self._shortest, last[0])
            self._longest = max(self._longest, last[1])
            self._sum, self._calls = self._sum + last[2], self._calls + 1

    def summary(self) -> Optional[Tuple[float, float, float]]:
        """Return (min, max, mean) over the calls; None when none was timed."""
        return (self._shortest, self._longest, self._sum / self._calls) if self._calls else None


def _keep_for_backward(model: torch.nn.Module, plan: ExecutionPlan) -> int:
    """Mark the outputs that are stored for recomputation; return their number."""
    if plan.recompute == "none":
        return 0
    points = recompute_points(model, plan.recompute_checkpoints)
    for path in points:
        model.get_submodule(path.replace("/", ".")).register_forward_hook(_keep)
    return len(points)


def _keep(_module: torch.nn.Module, _inputs: Any, output: Any) -> Any:
    return poptorch.recomputationCheckpoint(output)


def _plain(value: Any) -> Any:
    """Return nested plain containers with copies of their tensors."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(item) for item in value)
    return value
