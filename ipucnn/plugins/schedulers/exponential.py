"""The learning rate that falls by the same factor every epoch."""

from __future__ import annotations

from typing import List

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ScheduleSpec


def factor(epoch: float, decay: float, frequency: float = 1.0) -> float:
    """Return ``decay ** (epoch * frequency)``: continuous in the fractional epoch.

    Args:
        epoch: fractional epoch, from 0.
        decay: what one update of the schedule multiplies the rate by.
        frequency: updates per epoch.

    Raises:
        UsageError: `decay` is not positive.
    """
    if not 0 < decay < float("inf"):
        raise UsageError(f"schedule 'exponential': decay {decay!r} is out of range",
                         "it must be a number above 0")
    return float(decay ** (epoch * frequency))


@hookimpl
def ipucnn_lr_schedules() -> List[ScheduleSpec]:
    """Return exponential."""
    return [ScheduleSpec(name="exponential",
                         summary="multiplied by the decay at every update of the rate",
                         target="ipucnn.plugins.schedulers.exponential:factor",
                         parameters=("decay", "frequency"),
                         formula="f(e) = decay ^ (e frequency)")]
