"""Learning rate and loss scaling as functions of the epoch, and the selected optimizer."""

from __future__ import annotations

import functools
import inspect
import math
from dataclasses import dataclass
from typing import Callable

from ipucnn.core.errors import PluginError
from ipucnn.core.execution.training_session import OptimizerChoice
from ipucnn.core.registry.records import OptimizerSpec, ScheduleSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.models.target_checks import checked_optimizer
from ipucnn.training.options.train_options import TrainOptions

_ROUNDING = 1e-9  # 3 * (1 / 3) must count as 1


@dataclass(frozen=True)
class LearningRate:
    """The learning rate of every host call: a pure function, so resuming needs no state.

    Attributes:
        base: `--lr`.
        factor: the schedule, of the fractional epoch.
        frequency: updates of the rate per epoch; 0 is every host call.
        warmup: epochs of linear warm-up.
    """

    base: float
    factor: Callable[[float], float]
    frequency: float = 0.0
    warmup: float = 0.0

    def at(self, epoch: float, next_epoch: float) -> float:
        """Return the rate of a host call.

        ``base * factor(floor(epoch * f) / f) * min(1, next_epoch / warmup)``; without a frequency,
        the factor is that of `epoch` itself.

        Args:
            epoch: fractional epoch at which the call begins.
            next_epoch: fractional epoch at which it ends, so that the first warm-up step is not
                zero.
        """
        f = self.frequency
        place = math.floor(epoch * f + _ROUNDING) / f if f else epoch
        warm = min(1.0, next_epoch / self.warmup) if self.warmup else 1.0
        return self.base * self.factor(place) * warm


@dataclass(frozen=True)
class LossScaling:
    """Loss scaling that doubles from `initial` to `final` at equal intervals.

    With n levels, level i begins at epoch ``i * (epochs // n)``. A ratio that is no power of two
    ends at `final` exactly. With fewer epochs than levels, the last epoch has the final value.
    """

    initial: float
    final: float
    epochs: int

    def at(self, epoch: int) -> float:
        """Return the loss scaling of an epoch, counted from 0."""
        if self.initial >= self.final:
            return self.final
        levels = math.ceil(math.log2(self.final / self.initial) - _ROUNDING) + 1
        width = self.epochs // levels
        level = epoch // width if width else levels - self.epochs + epoch
        return self.final if level >= levels - 1 else self.initial * 2**level


def learning_rate(options: TrainOptions, registry: Registry) -> LearningRate:
    """Return the learning rate selected by the options.

    Raises:
        UsageError: an unknown schedule, or a value that it rejects.
        PluginError: the schedule returned no factor; also raised by `LearningRate.at`.
    """
    schedule = options.schedule
    spec = registry.get_typed(ScheduleSpec, schedule.lr_schedule)
    target = registry.resolve(spec)
    accepted = inspect.signature(target).parameters
    known = {"epochs": max(1, options.optimisation.epochs),
             "frequency": schedule.lr_scheduler_freq or 1.0,
             "options": options.plugins.of("lr-schedule", spec.name)}
    keywords = {name: value for name, value in known.items() if name in accepted}

    def factor(epoch: float) -> float:
        value = target(epoch, **keywords)
        try:
            found = float(value)
        except (TypeError, ValueError):
            found = math.nan
        if not math.isfinite(found) or found < -_ROUNDING:
            raise PluginError(f"lr-schedule {spec.name!r} returned {value!r} at epoch {epoch:g}, "
                              "expected a finite number of at least 0",
                              "select another '--lr-schedule', or report it to its author")
        return found

    factor(0.0)  # rejects invalid values now
    return LearningRate(options.optimisation.rate, factor, schedule.lr_scheduler_freq,
                        schedule.warmup_epoch or 0.0)


def loss_scaling(options: TrainOptions) -> LossScaling:
    """Return the loss scaling selected by the options."""
    optimisation = options.optimisation
    final, initial = optimisation.loss_scaling, optimisation.initial_loss_scaling
    return LossScaling(final if initial is None else initial, final, optimisation.epochs)


def optimizer_choice(options: TrainOptions, registry: Registry) -> OptimizerChoice:
    """Return the optimizer selected by the options.

    Raises:
        UsageError: an unknown optimizer.
    """
    optimisation = options.optimisation
    spec = registry.get_typed(OptimizerSpec, optimisation.optimizer)
    own = options.plugins.of("optimizer", spec.name)
    return OptimizerChoice(spec.name, optimisation.rate, optimisation.weight_decay, own,
                           functools.partial(checked_optimizer, functools.partial(
                               registry.make, spec, options=own), registry.in_words(spec)))
