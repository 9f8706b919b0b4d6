"""Cosine schedule: the learning rate decays to zero along half a cosine."""

from __future__ import annotations

import math
from typing import List

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ScheduleSpec


def factor(epoch: float, epochs: float) -> float:
    """Return ``(1 + cos(pi * epoch / epochs)) / 2``, and 0 after the last epoch.

    Source: SGDR without restarts (Loshchilov and Hutter, 2017, equation 5, minimum 0).

    Args:
        epoch: fractional epoch, from 0.
        epochs: epochs of the whole training.

    Raises:
        UsageError: `epochs` is not positive.
    """
    if not epochs > 0:
        raise UsageError(f"schedule 'cosine': {epochs!r} epochs are too few",
                         "it must be more than 0")
    # without the bound, the rate would increase again after the last epoch
    return (1.0 + math.cos(math.pi * min(epoch / epochs, 1.0))) / 2.0


@hookimpl
def ipucnn_lr_schedules() -> List[ScheduleSpec]:
    """Return the record of the schedule `cosine`."""
    return [ScheduleSpec(name="cosine", summary="half a cosine from the base rate to zero",
                         target="ipucnn.plugins.schedulers.cosine:factor",
                         formula="f(e) = (1 + cos(pi min(e / epochs, 1))) / 2")]
