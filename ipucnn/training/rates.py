"""Learning rate and loss scaling as functions of the epoch, and the optimizer that is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Type

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.training_session import OptimizerChoice
from ipucnn.core.options import TrainOptions
from ipucnn.core.options.declaration import changed
from ipucnn.core.registry.records import OptimizerSpec, PluginSpec, ScheduleSpec
from ipucnn.core.registry.registry import Registry

_ROUNDING = 1e-9  # 3 * (1 / 3) must count as 1


@dataclass(frozen=True)
class LearningRate:
    """The learning rate of every host call: a pure function, so that resuming needs no state.

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

        ``base * factor(floor(epoch * f) / f) * min(1, next_epoch / warmup)``; without a frequency
        the factor is of `epoch` itself.

        Args:
            epoch: fractional epoch at which the call begins.
            next_epoch: at which it ends, so that the first warm-up step is not zero.
        """
        f = self.frequency
        place = math.floor(epoch * f + _ROUNDING) / f if f else epoch
        warm = min(1.0, next_epoch / self.warmup) if self.warmup else 1.0
        return self.base * self.factor(place) * warm


@dataclass(frozen=True)
class LossScaling:
    """Loss scaling that doubles from `initial` to `final` at even distances.

    With n levels, level i begins at epoch ``i * (epochs // n)``. A ratio that is no power of two
    ends at `final` exactly. Of fewer epochs than levels the last one has the final value.
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
    """Return the learning rate that the options describe.

    Raises:
        UsageError: an unknown schedule, an option that it lacks, or a value that it refuses.
    """
    spec = registry.get_typed(ScheduleSpec, options.lr_schedule)
    values = {"epochs": max(1, options.epoch), "decay": options.lr_decay,
              "milestones": options.lr_epoch_decay, "factors": options.lr_factors,
              "power": options.lr_power, "frequency": options.lr_scheduler_freq or 1.0}
    _refuse(options, spec, spec.parameters, {
        "lr_decay": "decay", "lr_epoch_decay": "milestones", "lr_factors": "factors",
        "lr_power": "power"},
        [s.name for s in _all(registry, ScheduleSpec)],
        lambda name, needed: needed in registry.get_typed(ScheduleSpec, name).parameters)
    target = registry.resolve(spec)
    parameters = {name: values[name] for name in spec.parameters if name in values}

    def factor(epoch: float) -> float:
        return float(target(epoch, **parameters))

    factor(0.0)  # refuses wrong parameters now
    return LearningRate(options.lr, factor, options.lr_scheduler_freq, options.warmup_epoch)


def loss_scaling(options: TrainOptions) -> LossScaling:
    """Return the loss scaling that the options describe."""
    initial = options.initial_loss_scaling
    return LossScaling(options.loss_scaling if initial is None else initial, options.loss_scaling,
                       options.epoch)


def optimizer_choice(options: TrainOptions, registry: Registry) -> OptimizerChoice:
    """Return the optimizer that the options describe.

    Raises:
        UsageError: an unknown optimizer, or an option that it lacks.
    """
    spec = registry.get_typed(OptimizerSpec, options.optimizer)
    names = {"momentum": "momentum", "optimizer_eps": "eps", "rmsprop_decay": "alpha"}
    _refuse(options, spec, spec.hyperparameters, names,
            [s.name for s in _all(registry, OptimizerSpec)],
            lambda name, needed: needed in registry.get_typed(OptimizerSpec, name).hyperparameters)
    values: Dict[str, Any] = {ours: getattr(options, option) for option, ours in names.items()
                              if ours in spec.hyperparameters}
    return OptimizerChoice(spec.name, options.lr, options.weight_decay, values,
                           registry.resolve(spec))


def _all(registry: Registry, kind: Type[PluginSpec]) -> List[PluginSpec]:
    name = "schedule" if kind is ScheduleSpec else "optimizer"
    return [registry.get(name, item) for item in registry.names(name)]


def _refuse(options: TrainOptions, spec: PluginSpec, has: Any, names: Dict[str, str],
            others: List[str], having: Callable[[str, str], bool]) -> None:
    """Refuse options that were given and that the plugin lacks."""
    for item in changed(options):
        needed: Optional[str] = names.get(item.name)
        if needed and needed not in has:
            able = [other for other in others if having(other, needed)]
            raise UsageError(f"'{item.flag}' has no meaning for {spec.name!r}",
                             "leave it out; it is for " + ", ".join(able))
