"""The lease of a training on a folder of a store, which has no locks.

The lease is a file with the owner of the folder and the time of the last renewal. Of two trainings
that start at the same time, the one that reads back its own lease continues. The clocks of hosts
may differ, so a lease that seems to have expired is taken over only if it is not renewed for a
while.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import Any, Callable, Dict, Iterator, Mapping, Optional

from ipucnn.core.documents import json_text, parsed_json
from ipucnn.core.environment import command
from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.execution.launching import launched
from ipucnn.core.names import printable
from ipucnn.data.remote.stores import Store

FILE = "lease.json"
RENEWED = 30.0
"""Seconds after which a lease is renewed."""

VALID = 150.0
"""Seconds after which a lease expires if it is not renewed."""

OBSERVED = 1.5
"""Times `RENEWED` for which an expired lease is observed before it is taken over."""

_LARGEST = 1 << 16
_LAST = 10.0  # seconds to wait for an active renewal at the end


@contextmanager
def leased(store: Store, option: str, report: Callable[[str], None],
           lost: Callable[[str], None]) -> Iterator[Callable[[], str]]:
    """Hold the lease of a folder on a store, and renew it.

    Yields a function that reads the lease and returns why this process must not write there any
    more: another training has taken it over. Otherwise the text is empty.

    Args:
        store: the folder.
        option: the option that names another folder, for messages.
        report: receives a note when an expired lease is taken over.
        lost: called in a thread with this text when it is not empty.

    Raises:
        UsageError: another training holds it.
        DataError: the store cannot be written.
    """
    found = _read(store)
    if found is not None:
        age = time.time() - found["time"]
        launch = launched()
        # no process of this host writes there, because of the local lock
        ended = found["host"] == socket.gethostname() or (launch is not None and launch.restarts)
        if not ended and (-VALID < age < VALID or _is_renewed(store, found, report)):
            raise UsageError(
                f"folder {store.shown()!r} is in use by another training, process "
                f"{found['process']} on {found['host']!r}: {found['command']!r}",
                f"wait until it ends ({VALID:.0f} s if it was killed), or choose another "
                f"'{option}'")
        report(f"{store.shown()!r} is taken over from process {found['process']} on "
               f"{found['host']!r}, which did not end regularly")
    token = secrets.token_hex(8)
    _write(store, token)
    again = _read(store)
    if again is None or again["token"] != token:
        raise UsageError(f"folder {store.shown()!r} is in use by another training, which has just "
                         "started", f"wait until it ends, or choose another '{option}'")
    over = threading.Event()
    thread = threading.Thread(target=_renew, args=(store, token, over, lost), name="ipucnn-lease",
                              daemon=True)
    thread.start()
    try:
        yield lambda: _taken(store, token)
    finally:
        over.set()
        thread.join(_LAST)  # otherwise it would write the lease again
        with suppress(DataError):
            if not _taken(store, token):
                store.remove(FILE)


def _renew(store: Store, token: str, over: threading.Event, lost: Callable[[str], None]) -> None:
    """Renew a lease until the end, or until another training has taken it over.

    This happens if this process was suspended, or the store could not be reached, for too long.
    """
    while not over.wait(RENEWED):
        with suppress(DataError):  # failures of the store are reported for checkpoints
            taken = _taken(store, token)
            if taken:
                lost(taken)
                return
            _write(store, token)


def _taken(store: Store, token: str) -> str:
    """Return why the process with a token must not write; empty if it may."""
    found = _read(store)
    if found is None or found["token"] == token:
        return ""
    return f"{store.shown()!r} was taken over by another training, process {found['process']} on " \
           f"{found['host']!r}, because this one did not renew its lease in time"


def _is_renewed(store: Store, found: Mapping[str, Any], report: Callable[[str], None]) -> bool:
    """Return whether a lease is renewed within some time although it seems to have expired."""
    report(f"waiting {OBSERVED * RENEWED:.0f} s to see whether {store.shown()!r} is still in use "
           f"by process {found['process']} on {found['host']!r}")
    until = time.monotonic() + OBSERVED * RENEWED
    while time.monotonic() < until:
        time.sleep(RENEWED / 10)
        now = _read(store)
        if now is None or now != found:
            return now is not None
    return False


def _write(store: Store, token: str) -> None:
    lease = {"token": token, "process": os.getpid(), "host": socket.gethostname(),
             "time": time.time(), "command": " ".join(["ipucnn", *command()[1:]])[:200]}
    store.write(FILE, json_text(lease).encode())


def _read(store: Store) -> Optional[Dict[str, Any]]:
    """Return the lease, or None if there is no valid one."""
    if store.stat(FILE) is None:
        return None
    try:
        found = parsed_json(store.read(FILE, _LARGEST))
        return {"token": str(found["token"]), "process": int(found["process"]),
                "time": float(found["time"]),
                **{name: printable(str(found[name]))[:200] for name in ("host", "command")}}
    except (ValueError, KeyError, TypeError):
        return None
