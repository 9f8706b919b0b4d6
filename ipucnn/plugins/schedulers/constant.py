"""Constant learning rate."""

from __future__ import annotations

from typing import List

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ScheduleSpec


def factor(epoch: float) -> float:  # noqa: ARG001 - every schedule is a function of the epoch
    """Return 1 at every epoch."""
    return 1.0


@hookimpl
def ipucnn_lr_schedules() -> List[ScheduleSpec]:
    """Return the record of the schedule `constant`."""
    return [ScheduleSpec(name="constant", aliases=("no", "none"),
                         summary="the base learning rate in all epochs",
                         target="ipucnn.plugins.schedulers.constant:factor",
                         formula="f(e) = 1")]
