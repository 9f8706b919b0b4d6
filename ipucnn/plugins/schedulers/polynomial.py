"""The learning rate that falls to zero as a power of the time left."""

from __future__ import annotations

from typing import List

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ScheduleSpec


def factor(epoch: float, epochs: float, power: float = 1.0) -> float:
    """Return ``(1 - epoch / epochs) ** power``, and 0 after the last epoch.

    Args:
        epoch: fractional epoch, from 0.
        epochs: epochs of the whole training.
        power: 1 is a straight line.

    Raises:
        UsageError: `epochs` or `power` is not positive.
    """
    if not epochs > 0 or not power > 0:
        raise UsageError(f"schedule 'polynomial': {epochs!r} epochs and power {power!r} are out "
                         "of range", "both must be more than 0")
    return float((1.0 - min(epoch / epochs, 1.0)) ** power)


@hookimpl
def ipucnn_lr_schedules() -> List[ScheduleSpec]:
    """Return polynomial."""
    return [ScheduleSpec(name="polynomial", aliases=("poly",),
                         summary="a power of the epochs left, to zero",
                         target="ipucnn.plugins.schedulers.polynomial:factor",
                         parameters=("epochs", "power"),
                         formula="f(e) = (1 - min(e / epochs, 1)) ^ power")]
