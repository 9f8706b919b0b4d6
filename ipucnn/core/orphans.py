"""Ends a process with the one that started it."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

PARENT = "IPUCNN_PARENT"
"""The environment variable that gives processes the number of the one that starts them."""

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Have the system kill this process when its parent ends, where it can (Linux).

    The parent ends for it when the thread that started it does.

    Args:
        parent: the parent's process number. If that has ended before, this process ends now.
    """
    if sys.platform.startswith("linux"):
        import ctypes

        with suppress(OSError, AttributeError):  # a C library without it
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
