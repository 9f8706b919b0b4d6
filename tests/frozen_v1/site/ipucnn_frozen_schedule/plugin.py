"""The hooks: what this distribution offers. Imports no torch."""

from typing import List

import ipucnn


@ipucnn.hookimpl
def ipucnn_lr_schedules() -> List[ipucnn.ScheduleSpec]:
    """Return the schedule."""
    return [ipucnn.ScheduleSpec(
        name="frozen-schedule", summary="linear, down to a last factor",
        target="ipucnn_frozen_schedule.lr_schedule:lr_factor", formula="1 - (1 - last) e / epochs",
        options="ipucnn_frozen_schedule.options:ScheduleOptions")]
