"""The options that the plugin declares. Imports no torch."""

from dataclasses import dataclass

import ipucnn


@dataclass(frozen=True)
class ScheduleOptions:
    """Options of the schedule."""

    frozen_schedule_last: float = ipucnn.option(
        0.0, "Factor on the learning rate at the end.", minimum=0.0)
