"""The exit codes of the process.

Errors carry theirs (`IpucnnError.exit_code`): 1 for work that failed, 2 for wrong usage.
"""

from __future__ import annotations

from typing import Optional

OK = 0
FAILED = 1
"""The command failed, or a check found a problem."""

USAGE = 2
"""Wrong usage, an unknown name or an unavailable backend."""

INTERRUPTED = {"SIGINT": 130, "SIGTERM": 143}
"""128 + the number of the signal, as in shells"""

BROKEN_PIPE = 141
"""The reader of standard output closed it (128 + SIGPIPE)."""


def of_signal(name: Optional[str]) -> int:
    """Return the exit code of work ended by a signal; 0 if it is not a signal."""
    return INTERRUPTED.get(name or "", OK)
