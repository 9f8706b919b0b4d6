"""Refuses to work in one of several processes that would each do all of the work.

Schedulers start a command several times without a launcher that connects the processes.
"""

from __future__ import annotations

import os
from typing import Mapping, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.launching import LOCAL, VARIABLE, launched

_SLURM = "srun"

_TORCH = "WORLD_SIZE"
"""The number of processes that a program connects with torch.distributed. Without torchrun's own
variables, several processes are only assumed where RANK is set, too."""

_COUNTS: Tuple[Tuple[str, Tuple[str, ...]], ...] = (
    (_SLURM, ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")), ("mpirun", ("OMPI_COMM_WORLD_SIZE",)),
    ("mpirun", ("PMI_SIZE",)))
"""Programs, and the variables with the number of the processes that they have started.

Slurm sets the first of its variables only for the processes of `srun`, and the second also in batch
scripts and allocations. A batch script may inherit the first one from the shell that submitted it;
then they usually differ.
"""


def check_shared(launcher: str = "") -> None:
    """Raise an error in one of several processes without a launcher.

    Args:
        launcher: name of one that would start processes of this host only; empty without one.

    Raises:
        UsageError: names the program and the number of processes.
    """
    if VARIABLE in os.environ or launched() is not None:
        return
    found = _started(os.environ)
    if found is None:
        return
    program, count = found
    if program == _TORCH:
        raise UsageError(
            f"RANK and WORLD_SIZE are those of one of {count} processes, and each would do all "
            "of the work",
            "TORCHELASTIC_RUN_ID=none in the environment connects them as torchrun does "
            f"(LOCAL_RANK, MASTER_ADDR and MASTER_PORT must be set); {VARIABLE}={LOCAL} makes each "
            "process work alone")
    if launcher:
        raise UsageError(
            f"{program} has started {count} processes of this command, and each would start "
            f"processes with '--launcher {launcher}' that do all of the work",
            f"leave {program} out for one host; docs/scale.md describes several hosts; {VARIABLE}="
            f"{LOCAL} in the environment makes each process work alone")
    raise UsageError(
        f"{program} has started {count} processes of this command, and each would do all of the "
        "work",
        f"leave {program} out and add '--launcher torchrun', which starts processes that share the "
        f"work (docs/scale.md describes several hosts); {VARIABLE}={LOCAL} in the environment "
        "makes each process work alone")


def _started(variables: Mapping[str, str]) -> Optional[Tuple[str, int]]:
    """Return the program that started several processes, and their number, or None."""
    for program, names in _COUNTS:
        values = {variables.get(name, "") for name in names}
        value = values.pop()
        if values or not value.isdecimal() or int(value) < 2:
            continue
        # `srun --pty` starts a shell in the first process
        return None if program == _SLURM and _has_terminal() else (program, int(value))
    count = variables.get(_TORCH, "")
    if variables.get("RANK", "").isdecimal() and count.isdecimal() and int(count) > 1:
        return _TORCH, int(count)
    return None


def _has_terminal() -> bool:
    """Return whether a terminal controls this process."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY))
    except OSError:
        return False
    return True
