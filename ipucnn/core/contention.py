"""Whether other programs use the processors, and what threads that wait for each other do then.

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

from ipucnn.core.machine import compute_threads

log = logging.getLogger("ipucnn.contention")

_SAMPLES, _PAUSE = 3, 0.004
"""How often the number of runnable threads is read, and the seconds between."""

_CONFIGURED = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables by which users configure the waiting of OpenMP's threads."""


def busy(root: Path = Path("/")) -> bool:
    """Return whether other programs use all processors of the machine now.

    Systems that do not count runnable threads are regarded as idle.

    Args:
        root: folder in which `proc` is mounted.
    """
    counts = []
    for number in range(_SAMPLES):
        time.sleep(_PAUSE if number else 0.0)
        counts.append(_others(root))
    return statistics.median(counts) >= (os.cpu_count() or 1)


def _others(root: Path) -> int:
    """Return the number of runnable threads of other processes.

    Source: Linux `Documentation/filesystems/proc.rst`: `procs_running`, and states of threads.
    """
    proc = root / "proc"
    try:
        found = re.search(r"^procs_running (\d+)", (proc / "stat").read_text(), re.MULTILINE)
    except OSError:
        return 0
    own = 0
    for path in (proc / "self" / "task").glob("*/stat"):
        with suppress(OSError):  # the thread has ended
            own += path.read_text().rpartition(")")[2].split()[:1] == ["R"]
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
