"""Ends a process when its parent process ends."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

PARENT = "IPUCNN_PARENT"
"""The environment variable with the number of the parent process."""

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int) -> None:
    """Request that the system kills this process when its parent ends (Linux only).

    This also happens when the thread of the parent that started this process ends.

    Args:
        parent: the parent's process number. If it has already ended, this process ends now.
    """
    if sys.platform.startswith("linux"):
        import ctypes

        with suppress(OSError, AttributeError):  # a C library without it
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
