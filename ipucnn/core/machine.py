"""How much of the machine this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath
from typing import Iterator, Optional


def usable_cores(root: Path = Path("/")) -> int:
    """Return the number of cores this process may use, at least 1.

    That is the smaller of its CPU affinity and its cgroup's quota (a part of a core counts as one),
    which in a container is often far less than the machine has.

    Args:
        root: where `proc` and `sys` are mounted.
    """
    if hasattr(os, "sched_getaffinity"):
        affinity = len(os.sched_getaffinity(0))
    else:
        affinity = os.cpu_count() or 1
    quota = cgroup_quota(root)
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


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
    """The group and all around it, up to the mount (the only one a container may see)."""
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
