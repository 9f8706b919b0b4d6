"""Ends a child process when its parent ends, in any state of both.

On Linux, the system kills it. On other systems, and if the parent is a thread of a process,
a thread detects that the parent's end of the connection is closed.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from contextlib import suppress

from ipucnn.core import orphans


def end_with_parent(connection: int, parent: int) -> None:
    """End this process when its parent ends.

    Args:
        connection: descriptor of a connection to the parent.
        parent: the parent's process number.
    """
    os.set_inheritable(connection, False)
    orphans.end_with_parent(parent)
    threading.Thread(target=_watch, args=(connection,), daemon=True).start()


def _watch(connection: int) -> None:
    """End the process when the other end of the connection is closed."""
    poll = select.poll()
    poll.register(connection, 0)  # closing is always reported
    while True:
        with suppress(OSError):
            if poll.poll():
                _end_group()


def _end_group() -> None:
    """Kill this process and those that it started; it leads their group."""
    with suppress(OSError):
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)
