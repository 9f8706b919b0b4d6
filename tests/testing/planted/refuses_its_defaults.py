"""Options whose defaults their own class refuses."""

from dataclasses import dataclass

import ipucnn
from ipucnn.plugin import UsageError


@dataclass(frozen=True)
class Options:
    planted_low: float = ipucnn.option(1.0, "Smallest factor.")
    planted_high: float = ipucnn.option(0.5, "Largest factor.")

    def __post_init__(self):
        if self.planted_low > self.planted_high:
            raise UsageError("'--planted-low' is above '--planted-high'", "exchange them")


def factor(epoch, options):
    return options.planted_high


@ipucnn.hookimpl
def ipucnn_lr_schedules():
    return [ipucnn.ScheduleSpec(name="planted", summary="planted", target=factor, options=Options)]
