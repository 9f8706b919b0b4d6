"""Polynomial schedule: the learning rate decays to zero as a power of the time left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ScheduleSpec


@dataclass(frozen=True)
class PolynomialOptions:
    """Options of the polynomial schedule."""

    lr_power: float = option(1.0, "Exponent of the polynomial; 1 is linear decay.",
                             exclusive_minimum=0.0, basic=True)


def factor(epoch: float, epochs: float, options: PolynomialOptions) -> float:
    """Return ``(1 - epoch / epochs) ** power``, and 0 after the last epoch.

    Args:
        epoch: fractional epoch, from 0.
        epochs: epochs of the whole training.
        options: the power.

    Raises:
        UsageError: `epochs` is not positive.
    """
    if not epochs > 0:
        raise UsageError(f"schedule 'polynomial': {epochs!r} epochs are too few",
                         "it must be more than 0")
    return float((1.0 - min(epoch / epochs, 1.0)) ** options.lr_power)


@hookimpl
def ipucnn_lr_schedules() -> List[ScheduleSpec]:
    """Return the record of the schedule `polynomial`."""
    return [ScheduleSpec(name="polynomial", aliases=("poly",),
                         summary="polynomial decay to zero",
                         target="ipucnn.plugins.schedulers.polynomial:factor",
                         options=PolynomialOptions,
                         formula="f(e) = (1 - min(e / epochs, 1)) ^ power")]
