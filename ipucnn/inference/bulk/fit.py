"""How many processes of a run this machine carries."""

from __future__ import annotations

from typing import Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.machine import available_memory, usable_cores

PER_CORE = 4
"""Processes that may share a core: each waits for files, or for a device, part of the time."""

PROCESS_BYTES = 512 << 20
"""Memory of a process that has imported torch and an engine, before its network and its images."""


def check_fit(instances: int) -> None:
    """Raise `UsageError` for more processes than the cores and the memory carry."""
    cores, memory = usable_cores(), available_memory()
    by_cores = PER_CORE * cores
    by_memory: Optional[int] = None if memory is None else max(1, memory // PROCESS_BYTES)
    if instances <= by_cores and (by_memory is None or instances <= by_memory):
        return
    if by_memory is not None and by_memory < by_cores:
        fitting, reason = by_memory, f"{(memory or 0) / (1 << 30):.1f} GiB of memory are free, " \
            f"and a process takes {PROCESS_BYTES >> 20} MiB or more"
    else:
        fitting = by_cores
        reason = f"this process may use {cores} core{'s' if cores > 1 else ''}, for at most " \
                 f"{PER_CORE} instances each"
    raise UsageError(f"{instances} instances do not fit this machine: {reason}",
                     f"use '--instances {fitting}' or fewer, or add '--oversubscribe'")
