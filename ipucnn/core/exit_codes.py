"""The exit codes of the process, the signals that end it with one of them, and closed terminals.

Errors carry theirs (`IpucnnError.exit_code`): 1 for work that failed, 2 for wrong usage.
"""

from __future__ import annotations

import os
import signal
import stat
from contextlib import suppress
from typing import List, Optional

OK = 0
FAILED = 1
"""The command failed, or a check found a problem."""

USAGE = 2
"""Wrong usage, an unknown name or an unavailable backend."""

OF_SCHEDULERS = {
    name: 128 + signal.Signals[name] for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name)}
"""Codes of the signals by which schedulers announce a time limit."""

INTERRUPTED = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143, **OF_SCHEDULERS}
"""128 + the number of the signal, as in shells"""

BROKEN_PIPE = 141
"""The reader of standard output closed it (128 + SIGPIPE)."""


def ending_signals() -> List[signal.Signals]:
    """Return the signals that end a command: those of `INTERRUPTED` that this system has.

    SIGHUP, which a closed terminal sends, and the signals of schedulers are not among them if they
    are ignored (`nohup`).
    """
    found = [signal.Signals[name] for name in INTERRUPTED if hasattr(signal, name)]
    return [number for number in found if number.name in ("SIGINT", "SIGTERM")
            or signal.getsignal(number) is not signal.SIG_IGN]


def leave_closed_terminal() -> None:
    """Discard further output to a terminal that was closed, where writing fails."""
    for number in (1, 2):
        with suppress(OSError):
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                closed = os.open(os.devnull, os.O_WRONLY)
                os.dup2(closed, number)
                os.close(closed)


def of_signal(name: Optional[str]) -> int:
    """Return the exit code of work ended by a signal; 0 if it is not a signal."""
    return INTERRUPTED.get(name or "", OK)
