"""The learning rate that drops at milestones."""

from __future__ import annotations

from bisect import bisect_right
from typing import List, Sequence

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ScheduleSpec


def factor(epoch: float, milestones: Sequence[float], decay: float,
           factors: Sequence[float] = ()) -> float:
    """Return ``factors[n]``, where n counts the milestones that are at or before `epoch`.

    Args:
        epoch: fractional epoch, from 0.
        milestones: epochs at which the rate drops, in ascending order, each above 0.
        decay: ``factors[n]`` is ``decay ** n`` when none are given.
        factors: one for the start and one for each milestone; further ones are not reached.

    Raises:
        UsageError: the milestones are not ascending, there are more than factors for them, or a
            value is not positive.
    """
    if not 0 < decay < float("inf"):
        raise UsageError(f"schedule 'step': decay {decay!r} is out of range",
                         "it must be a number above 0")
    if any(not milestone > 0 for milestone in milestones):
        raise UsageError(f"schedule 'step': milestones {list(milestones)!r} are not all above 0",
                         "a milestone is the epoch at which the learning rate drops")
    if any(later <= earlier for earlier, later in zip(milestones, milestones[1:])):
        raise UsageError(f"schedule 'step': milestones {list(milestones)!r} are not ascending",
                         "give each epoch once, in ascending order")
    if factors and len(milestones) >= len(factors):
        raise UsageError(f"schedule 'step': {len(milestones)} milestones need "
                         f"{len(milestones) + 1} factors, and there are {len(factors)}",
                         "the first factor is from the start, and each milestone begins one more")
    passed = bisect_right(milestones, epoch)
    return float(factors[passed] if factors else decay ** passed)


@hookimpl
def ipucnn_lr_schedules() -> List[ScheduleSpec]:
    """Return step."""
    return [ScheduleSpec(name="step", aliases=("multi-step",),
                         summary="multiplied by the decay, or the next factor, at each milestone",
                         target="ipucnn.plugins.schedulers.step:factor",
                         parameters=("milestones", "decay", "factors"),
                         formula="f(e) = decay ^ #(milestones <= e), or factors[that]")]
