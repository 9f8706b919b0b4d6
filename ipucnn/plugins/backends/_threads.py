"""The number of threads that an engine computes with on a CPU."""

from __future__ import annotations

from typing import Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.machine import (
    compute_threads,
    lacks_openmp,
    physical_cores,
    thread_count,
    usable_cores,
)


def threads_of(given: Optional[int], openmp: bool = False) -> int:
    """Return the number of threads that compute on a CPU.

    Args:
        given: the value of `--threads`; None for the default.
        openmp: the engine uses OpenMP, which may have only one thread; see `uses_openmp`.

    Raises:
        UsageError: the given number is greater than that of the cores of this process.
    """
    if given is not None and given > usable_cores():
        raise UsageError(f"'--threads {given}' is more than the {usable_cores()} cores that this "
                         "process may use", f"use a number up to {usable_cores()}")
    return 1 if openmp and lacks_openmp() else given or compute_threads()


def share_cores(threads: int) -> bool:
    """Return whether there are more threads than physical cores."""
    return threads > physical_cores()


def refuse_threads(given: Optional[int], device: str) -> None:
    """Check that no number of threads is given for a device that is no CPU.

    Raises:
        UsageError: one is given.
    """
    if given is not None:
        raise UsageError(f"'--threads' is for the threads of a CPU, and the device is {device}",
                         "leave it out, or use '--device cpu'")


def measured_threads(given: Optional[int]) -> Optional[int]:
    """Return the number of threads that is measured beside the default, or None.

    The default is one per physical core. Where a core executes several threads, they may be faster
    for layers that wait for memory.

    Args:
        given: the value of `--threads`, which is not varied.
    """
    every = thread_count()
    return every if given is None and every > compute_threads() else None
