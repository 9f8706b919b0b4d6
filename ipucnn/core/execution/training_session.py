"""The interface of training sessions: setup, batches, step results and the session."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, Mapping, Optional, Tuple, Type

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.feeding import Fed
from ipucnn.core.execution.mixing import Mixing, MixOptions

if TYPE_CHECKING:
    from types import TracebackType

    import torch

    from ipucnn.core.execution.losses import Loss

StateDict = Dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class OptimizerChoice:
    """An optimizer by name and options, for device optimizers, and as a torch builder.

    Attributes:
        name: canonical name of its record.
        lr: base learning rate.
        weight_decay: of all tensors with two dimensions or more; others have none.
        options: an instance of its record's options class, or None when it has none.
        build: creates torch's optimizer: ``build(param_groups, lr=...)``.
    """

    name: str
    lr: float
    weight_decay: float
    options: Any
    build: Callable[..., Any]


@dataclass(frozen=True)
class TrainingSetup:
    """The settings of a training session besides the model and the plan.

    Attributes:
        loss: the function that is minimised.
        optimizer: computes the weight updates.
        loss_scaling: initial factor on the loss.
        ema_decay: of the moving average of the weights; 0 disables it.
        tolerate_non_finite: skip and count an update whose loss is not finite, instead
            of raising `NonFiniteLoss`.
        metrics: whether to compute `StepResult.correct`.
        mix: options of mixup and cutmix; the batches carry the drawn values.
        rate_factors: factors on the learning rate by parameter name; 1 for other parameters.
        head: path of the output layer, the only layer that is trained after `freeze(True)`; empty
            if `freeze` is never called.
    """

    loss: Loss
    optimizer: OptimizerChoice
    loss_scaling: float = 1.0
    ema_decay: float = 0.0
    tolerate_non_finite: bool = False
    metrics: bool = True
    mix: MixOptions = field(default_factory=MixOptions)
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    head: str = ""


@dataclass(frozen=True)
class TrainingBatch:
    """One combined batch: B x D x R x G samples, iteration slowest, then accumulation, replica.

    Attributes:
        images: `(n, 3, size, size)`, uint8 or float as the plan specifies; None if it is synthetic.
        labels: int64 `(n,)`; None if the plan is synthetic.
        mixing: how images are mixed within their micro-batches, or None.
    """

    images: Optional[torch.Tensor]
    labels: Optional[torch.Tensor]
    mixing: Optional[Mixing] = None


@dataclass(frozen=True)
class StepResult:
    """The result of one host call.

    Attributes:
        loss: mean over its samples of the loss that is minimised, without loss scaling; over the
            updates that were not skipped.
        samples: images trained on.
        correct: images whose label was the largest logit; 0 without metrics.
        losses: mean loss of each weight update, D values; empty if the device returns only a sum.
        skipped: updates skipped because their loss was not finite.
    """

    loss: float
    samples: int
    correct: int = 0
    losses: Tuple[float, ...] = field(default=())
    skipped: int = 0


class NonFiniteLoss(IpucnnError):
    """The loss of a weight update is not finite, or its gradients are not.

    Attributes:
        update: number of the update, counted from 0 over the whole training.
        value: its loss.
        gradients: the loss is finite, and a gradient is not.
    """

    def __init__(self, update: int, value: float, gradients: bool = False) -> None:
        super().__init__(f"a gradient of weight update {update} is not finite" if gradients else
                         f"the loss of weight update {update} is {value}")
        self.update = update
        self.value = value
        self.gradients = gradients


class TrainingSession(Fed, ABC):
    """A model in training on a device. Exiting its context frees the device.

    Random numbers on the device (dropout) depend only on the plan's seed and the number of the
    weight update, so that a resumed training repeats them, and D updates in one call equal D
    calls with one update each.

    Attributes:
        facts: session details for the result.
    """

    facts: Dict[str, Any]

    @abstractmethod
    def compile(self) -> float:
        """Compile without changing the model, and return the duration in seconds."""

    @abstractmethod
    def set_rates(self, lr: float, loss_scaling: float) -> None:
        """Set learning rate and loss scaling of the following calls."""

    def freeze(self, frozen: bool) -> None:
        """Train only the output layer (`TrainingSetup.head`) in the following calls, or all again.

        The other layers then keep their weights, statistics and optimizer state, and dropout is
        disabled in them. Called on backends with the feature `fine-tuning` only, before the first
        call.
        """
        raise NotImplementedError

    @abstractmethod
    def step(self, batch: TrainingBatch, update: int) -> StepResult:
        """Train on one combined batch: D weight updates.

        Args:
            batch: the samples.
            update: number of the first of the updates, counted from 0 over the whole training.

        Raises:
            NonFiniteLoss: a loss is not finite and `tolerate_non_finite` is not set; the weights
                are then unusable.
        """

    @abstractmethod
    def weights(self, ema: bool = False) -> StateDict:
        """Return the weights under the names of the model, in float32 on the host.

        Args:
            ema: return the moving average instead. Buffers are those of the first replica.
        """

    @abstractmethod
    def state(self) -> Dict[str, Any]:
        """Return the remaining state that a resumed session needs, copied to the host.

        Plain types and tensors only: optimizer state, buffers of the other replicas, updates in
        the moving average.
        """

    @abstractmethod
    def load(self, weights: StateDict, state: Dict[str, Any],
             ema: Optional[StateDict] = None) -> None:
        """Continue from what `weights`, `state` and `weights(ema=True)` returned.

        The number of replicas may differ: additional replicas get the buffers of the first one.

        Raises:
            IpucnnError: the state is of another optimizer or model.
        """

    def device_latency(self) -> Optional[Tuple[float, float, float]]:
        """Return (min, max, mean) seconds of a call, measured by the device.

        Measured from the request for the first input to the last output written, over all calls so
        far; None if the device has no counters or has not run.
        """
        return None

    @contextmanager
    def detached(self) -> Iterator[None]:
        """Release the device to another session temporarily."""
        yield

    def close(self) -> None:
        """Free the device."""

    def __enter__(self) -> TrainingSession:
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()
