"""Limits of this process: CPU affinity, cgroup quotas, OMP_NUM_THREADS, instances' shares."""

from __future__ import annotations

import math
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Callable, Iterator, List, Optional, Tuple

_share: Optional[int] = None
"""CPU cores available to this process if several processes share them."""

_lacks_threads = False
"""Whether this process was forked from one that used OpenMP."""


def usable_cores(root: Path = Path("/")) -> int:
    """Return the number of cores this process may use, at least 1.

    This is the smaller of its CPU affinity and its cgroup's quota (rounded up to whole cores),
    which in a container is often far less than the machine has; for one of several instances, its
    share.

    Args:
        root: folder in which `proc` and `sys` are mounted.
    """
    if hasattr(os, "sched_getaffinity"):
        affinity = len(os.sched_getaffinity(0))
    else:
        affinity = os.cpu_count() or 1
    quota = cgroup_quota(root)
    limits = [affinity, *([] if quota is None else [math.ceil(quota)]),
              *([] if _share is None else [_share])]
    return max(1, min(limits))


def thread_count(root: Path = Path("/")) -> int:
    """Return the number of threads that a pool of this process should start.

    This is `usable_cores()`, or the value of OMP_NUM_THREADS where that is less.

    Args:
        root: folder in which `proc` and `sys` are mounted.
    """
    cores, limit = usable_cores(root), openmp_limit()
    return cores if limit is None else min(cores, limit)


def compute_threads(root: Path = Path("/")) -> int:
    """Return the number of threads that an engine should compute with.

    This is one per physical core: threads of one core share its units for multiplication, so that
    a second one is no gain for matrix products. OMP_NUM_THREADS overrides it. Source: PyTorch,
    "Grokking PyTorch Intel CPU performance from first principles".

    Args:
        root: folder in which `proc` and `sys` are mounted.
    """
    threads = thread_count(root)
    return threads if openmp_limit() is not None else min(threads, physical_cores(root))


def physical_cores(root: Path = Path("/")) -> int:
    """Return the number of physical cores of the CPUs that this process may use, at least 1.

    Args:
        root: folder in which `sys` is mounted.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    return len({_core_of(cpu, root) for cpu in os.sched_getaffinity(0)})


def _core_of(cpu: int, root: Path = Path("/")) -> int:
    """Return the first logical CPU of the physical core of a logical CPU.

    Source: Linux `Documentation/admin-guide/cputopology.rst`.
    """
    topology = root / "sys" / "devices" / "system" / "cpu" / f"cpu{cpu}" / "topology"
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second one of older kernels
        with suppress(OSError, ValueError):
            return int(re.split("[,-]", (topology / name).read_text())[0])
    return cpu


def lacks_openmp() -> bool:
    """Return whether engines that use OpenMP have one thread in this process; see `uses_openmp`."""
    return _lacks_threads


def uses_openmp(limit: Callable[[], object] = lambda: None) -> None:
    """Limit processes forked from this one to one thread, because it uses OpenMP.

    A forked process has none of OpenMP's other threads, and would wait for them forever.
    Source: pytorch/pytorch#17199.

    Args:
        limit: limits a library to one thread; called in a forked process.
    """
    def forked() -> None:
        global _lacks_threads
        _lacks_threads = True
        limit()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forked)


def openmp_limit() -> Optional[int]:
    """Return the value of OMP_NUM_THREADS, or None if it is not set or not valid.

    Of a list, one number per nesting level, the first counts. An invalid value is ignored, as
    OpenMP libraries do. Source: OpenMP 5.2, section 21.1.2.
    """
    value = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(value) if re.fullmatch("[0-9]{1,9}", value) and int(value) > 0 else None


def memory_limit(root: Path = Path("/")) -> int:
    """Return the bytes of memory of this machine, or of this process's control group if less.

    The limits of all enclosing groups count: a job of a scheduler has a group of its own.

    Args:
        root: folder in which `proc` and `sys` are mounted.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for group, limit, _ in _memory_groups(root):
        with suppress(OSError, ValueError):  # no such group, or the limit is `max`
            limits.append(int((group / limit).read_text()))
    return min(limit for limit in limits if limit)


@dataclass(frozen=True)
class Share:
    """The cores that one of several processes may use.

    Attributes:
        cores: core numbers; empty if processes cannot be bound to cores.
        count: number of cores to use.
    """

    cores: Tuple[int, ...]
    count: int

    def take(self) -> None:
        """Restrict this process, and threads it starts from now on, to the share."""
        global _share
        _share = self.count
        if self.cores:
            os.sched_setaffinity(0, self.cores)
        else:
            os.environ["OMP_NUM_THREADS"] = str(self.count)


def shares(count: int) -> List[Share]:
    """Divide this process's cores among `count`: contiguous, or round-robin if there are fewer.

    The logical CPUs of a physical core stay together.
    """
    cores = sorted(os.sched_getaffinity(0), key=lambda cpu: (_core_of(cpu), cpu)) \
        if hasattr(os, "sched_setaffinity") else []
    usable = usable_cores()

    def own(index: int) -> Tuple[int, ...]:
        if 0 < len(cores) < count:
            return (cores[index % len(cores)],)
        return tuple(cores[len(cores) * index // count:len(cores) * (index + 1) // count])

    return [Share(own(index),
                  max(1, usable * (index + 1) // count - usable * index // count))
            for index in range(count)]


def available_memory(root: Path = Path("/")) -> Optional[int]:
    """Return the bytes that processes may still allocate here, or None where that is not known.

    This is what the system can give without swapping, or what is left in the control group of this
    process if that is less. Sources: Linux `Documentation/filesystems/proc.rst` (`MemAvailable`)
    and `Documentation/admin-guide/cgroup-v2.rst` (`memory.max`).

    Args:
        root: folder in which `proc` and `sys` are mounted.
    """
    limits: List[Optional[int]] = []
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc" / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(1024 * int(line.split()[1]))
    limits += [_memory_left(*names) for names in _memory_groups(root)]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _memory_groups(root: Path) -> Iterator[Tuple[Path, str, str]]:
    """Yield the control groups of this process that may limit its memory, which may not exist.

    Each has the names of the files with its limit and with its usage.
    """
    mount = root / "sys" / "fs" / "cgroup"
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            for group in _enclosing(mount, path):
                yield group, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            for group in _enclosing(mount / "memory", path):
                yield group, "memory.limit_in_bytes", "memory.usage_in_bytes"


def _memory_left(group: Path, limit: str, usage: str) -> Optional[int]:
    try:
        used = int((group / usage).read_text())
        cache = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # the page cache is freed for processes
        used -= int(cache.get("inactive_file", cache.get("total_inactive_file", 0)))
        return max(0, int((group / limit).read_text()) - used)
    except (OSError, ValueError):  # no such group, or the limit is `max`
        return None


def cgroup_quota(root: Path = Path("/")) -> Optional[float]:
    """Return the cores that the control group of this process may use, or None without a limit.

    The limits of all enclosing groups count. Sources: Linux `Documentation/admin-guide/
    cgroup-v2.rst` (`cpu.max`) and `scheduler/sched-bwc.rst` (`cpu.cfs_quota_us`).
    """
    mount = root / "sys" / "fs" / "cgroup"
    limits = []
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            limits += [_read_v2(group) for group in _enclosing(mount, path)]
        elif "cpu" in controllers.split(","):
            for name in ("cpu", controllers):  # `cpu` is a link to `cpu,cpuacct` where both exist
                limits += [_read_v1(group) for group in _enclosing(mount / name, path)]
    return min((limit for limit in limits if limit), default=None)


def _enclosing(mount: Path, path: str) -> Iterator[Path]:
    """Yield the group and all its parents, up to the mount (the only one a container may see)."""
    group = PurePosixPath(path.lstrip("/"))
    yield mount / group
    for parent in group.parents:
        if mount / parent != mount / group:
            yield mount / parent


def _read_v2(group: Path) -> Optional[float]:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _read_v1(group: Path) -> Optional[float]:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        period = int((group / "cpu.cfs_period_us").read_text())
        return None if quota < 0 else quota / period
    except (OSError, ValueError, ZeroDivisionError):
        return None
