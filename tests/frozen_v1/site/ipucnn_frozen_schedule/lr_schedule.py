"""The schedule: a pure function of the fractional epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipucnn_frozen_schedule.options import ScheduleOptions


def lr_factor(epoch: float, epochs: float, options: ScheduleOptions) -> float:
    """Return the factor on the base learning rate: from 1 down to the last one, linearly.

    Args:
        epoch: fractional epoch, from 0; may be beyond the last.
        epochs: of the whole training, at least 1.
        options: the last factor.
    """
    done = min(epoch / epochs, 1.0)
    return 1.0 - done * (1.0 - options.frozen_schedule_last)
