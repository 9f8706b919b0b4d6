"""Detects a busy machine, on which threads that wait for each other should sleep.

Threads of an engine wait for each other after every operator. On idle processors they are fastest
if they wait actively; on busy ones they take the time of the thread that they wait for.
"""

from __future__ import annotations

import logging
import os
import re
import statistics
import time
from contextlib import suppress
from pathlib import Path

from ipucnn.core.machine import compute_threads, usable_cores

log = logging.getLogger("ipucnn.contention")

_SAMPLES, _PAUSE = 3, 0.004
"""How often the number of runnable threads is read, and the seconds between."""

_CONFIGURED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which users configure the waiting of OpenMP's threads."""


def busy(root: Path = Path("/")) -> bool:
    """Return whether other programs use all processors of the machine now.

    They must have done so for a while, as the load average of the last minute shows: programs that
    start at the same time do not count. A machine of which this process may use some processors
    only is regarded as idle, as is a system that does not count runnable threads.

    Args:
        root: folder in which `proc` and `sys` are mounted.
    """
    processors = os.cpu_count() or 1
    if usable_cores(root) < processors or _load(root) < processors:
        return False
    counts = []
    for number in range(_SAMPLES):
        time.sleep(_PAUSE if number else 0.0)
        counts.append(_others(root))
    return statistics.median(counts) >= processors


def _load(root: Path) -> float:
    """Return the average number of runnable threads in the last minute; 0 if it is not known."""
    try:
        return float((root / "proc" / "loadavg").read_bytes().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0


def _others(root: Path) -> int:
    """Return the number of runnable threads of other processes.

    Source: Linux `Documentation/filesystems/proc.rst`: `procs_running`, and states of threads.
    """
    proc = root / "proc"
    try:
        found = re.search(rb"^procs_running (\d+)", (proc / "stat").read_bytes(), re.MULTILINE)
    except OSError:
        return 0
    own = 0
    for path in (proc / "self" / "task").glob("*/stat"):
        with suppress(OSError):  # the thread has ended
            own += path.read_bytes().rpartition(b")")[2].split()[:1] == [b"R"]
    return int(found.group(1)) - own if found else 0


def sleep_if_busy() -> None:
    """Let OpenMP's threads sleep while they wait, if other programs use all processors.

    This affects libraries that are loaded later, torch for example, until the process ends.
    Nothing changes if the environment configures it, or if engines have a single thread.
    Source: OpenMP 5.2, section 21.2.3 (OMP_WAIT_POLICY).
    """
    configured = any(os.environ.get(name) for name in _CONFIGURED)
    if not configured and compute_threads() > 1 and busy():
        os.environ["OMP_WAIT_POLICY"] = "passive"
        log.info("other programs use all processors: threads that wait sleep "
                 "(OMP_WAIT_POLICY=active prevents this)")
