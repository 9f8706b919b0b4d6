"""The device that the double simulates; tests change `MACHINE`, processes set the environment."""

import os
from dataclasses import dataclass, field
from typing import Any, List, Optional


@dataclass
class Machine:
    """A pretended machine.

    Attributes:
        ipus: IPUs in it.
        version: their generation.
        bytes_per_ipu: memory for weights; more is "out of memory". None is without limit.
        busy: somebody else uses the IPUs.
        fails: an error that the next run of a program raises.
        programs: every program compiled so far, the last one last.
    """

    ipus: int = field(default_factory=lambda: int(os.environ.get("POPTORCH_DOUBLE_IPUS", "16")))
    version: int = 2
    bytes_per_ipu: Optional[int] = None
    busy: bool = False
    fails: Optional[Exception] = None
    programs: List[Any] = field(default_factory=list)


MACHINE = Machine()


def enabled(variable):
    """Return what PopTorch makes of a variable that is a number: 0 is off."""
    return int(os.environ.get(variable, "0")) != 0


def model_enabled():
    return enabled("POPTORCH_IPU_MODEL") or enabled("POPTORCH_SMALL_IPU_MODEL")


def ipuHardwareIsAvailable(num_ipus=1):
    return not model_enabled() and MACHINE.ipus >= num_ipus


def ipuHardwareVersion():
    assert ipuHardwareIsAvailable(), "No IPU hardware available on this system"
    return MACHINE.version
