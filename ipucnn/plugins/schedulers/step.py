"""Step schedule: the learning rate drops at milestones."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import List, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ScheduleSpec


@dataclass(frozen=True)
class StepOptions:
    """Options of the step schedule.

    Raises:
        UsageError: the epochs are not ascending and above 0, there are more than factors for
            them, or both the decay and factors are given.
    """

    lr_decay: float = option(0.5, "Factor on the learning rate at each epoch of "
        "'--lr-epoch-decay'.",
                             exclusive_minimum=0.0, basic=True,
                             idle="without lr_epoch_decay")
    lr_epoch_decay: Tuple[float, ...] = option(
        (), "Epochs at which the learning rate drops.", metavar="EPOCH...", basic=True)
    lr_factors: Tuple[float, ...] = option(
        (), "Factors on the base rate, from the start and from each of these epochs on, instead "
        "of '--lr-decay'.", minimum=0.0,
        names=("--learning-rate-decay",), metavar="FACTOR...")

    def __post_init__(self) -> None:
        epochs, factors = list(self.lr_epoch_decay), self.lr_factors
        if factors and self.lr_decay != StepOptions.lr_decay:
            raise UsageError("'--lr-decay' contradicts '--lr-factors'", "leave one of them out")
        if any(not epoch > 0 for epoch in epochs):
            raise UsageError(f"schedule 'step': milestones {epochs!r} are not all above 0",
                             "a milestone is the epoch at which the learning rate drops")
        if any(later <= earlier for earlier, later in zip(epochs, epochs[1:])):
            raise UsageError(f"schedule 'step': milestones {epochs!r} are not ascending",
                             "give each epoch once, in ascending order")
        if factors and len(epochs) >= len(factors):
            raise UsageError(f"schedule 'step': {len(epochs)} milestones need "
                             f"{len(epochs) + 1} factors, and there are {len(factors)}",
                             "the first factor is from the start, and each milestone begins one "
                             "more")


def factor(epoch: float, options: StepOptions) -> float:
    """Return ``factors[n]``, where n counts the milestones that are at or before `epoch`.

    Args:
        epoch: fractional epoch, from 0.
        options: the milestones; ``factors[n]`` is ``decay ** n`` when no factors are given.
    """
    passed = bisect_right(options.lr_epoch_decay, epoch)
    factors = options.lr_factors
    return float(factors[passed] if factors else options.lr_decay ** passed)


@hookimpl
def ipucnn_lr_schedules() -> List[ScheduleSpec]:
    """Return the record of the schedule `step`."""
    return [ScheduleSpec(name="step", aliases=("multi-step",),
                         summary="multiplied by a factor at each of some epochs",
                         target="ipucnn.plugins.schedulers.step:factor", options=StepOptions,
                         formula="f(e) = decay ^ #(milestones <= e), or factors[that]")]
