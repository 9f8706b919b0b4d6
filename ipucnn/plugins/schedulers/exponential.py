"""Exponential schedule: the learning rate decays by a constant factor per epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List

from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ScheduleSpec


@dataclass(frozen=True)
class ExponentialOptions:
    """Options of the exponential schedule."""

    lr_decay: float = option(
        0.5, "Factor on the learning rate at each update of the schedule (each epoch without "
        "'--lr-scheduler-freq').",
        exclusive_minimum=0.0, basic=True)


def factor(epoch: float, frequency: float, options: ExponentialOptions) -> float:
    """Return ``decay ** (epoch * frequency)``: continuous in the fractional epoch.

    Args:
        epoch: fractional epoch, from 0.
        frequency: updates of the schedule per epoch.
        options: the decay.
    """
    return float(options.lr_decay ** (epoch * frequency))


@hookimpl
def ipucnn_lr_schedules() -> List[ScheduleSpec]:
    """Return the record of the schedule `exponential`."""
    return [ScheduleSpec(name="exponential",
                         summary="multiplied by a factor at every update of the rate",
                         target="ipucnn.plugins.schedulers.exponential:factor",
                         options=ExponentialOptions,
                         formula="f(e) = decay ^ (e frequency)")]
