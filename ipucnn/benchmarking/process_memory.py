"""The largest memory that a process has used.

`getrusage` is not used for this: its figure of a process begins with that of the process which
started it. Source: Linux `Documentation/filesystems/proc.rst` (`VmHWM`, `clear_refs`).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Optional

_PROC = Path("/proc")


def peak_memory() -> Optional[int]:
    """Return the largest resident memory of this process in bytes; None if it is not known."""
    with suppress(OSError, ValueError, IndexError):
        for line in (_PROC / "self" / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return None


def forget_peak() -> None:
    """Reset the largest memory of this process to its present one, if the system permits it."""
    with suppress(OSError):
        (_PROC / "self" / "clear_refs").write_text("5")
