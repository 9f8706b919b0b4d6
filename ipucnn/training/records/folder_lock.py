"""The lock of a training on its folders, which is released when its process ends."""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional, Tuple

from ipucnn.core.documents import parsed_json
from ipucnn.core.environment import command
from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.staging import is_at, lock
from ipucnn.models.store_paths import on_store, shown_path
from ipucnn.training.records.store_lease import leased

FILE = ".lock"
"""Name of the file that is locked; it names the process that holds it."""


@dataclass
class _Held:
    """The thread that holds a folder, and its open file."""

    thread: int
    descriptor: int


_held: Dict[str, _Held] = {}
"""The folders locked by this process, by their real paths."""


@contextmanager
def locked(folder: Path, option: str, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a folder; reentrant within a thread.

    For the copies of a folder on a store, a lease of that folder is held as well.

    Args:
        folder: an existing folder.
        option: the option that names another folder, for messages.
        report: receives a note if the file system has no locks.

    Raises:
        UsageError: another training holds it, or the folder cannot be written.
    """
    real = os.path.realpath(str(folder))
    if real in _held and _held[real].thread == threading.get_ident():
        yield
        return
    path = folder / FILE
    try:
        descriptor, own = _acquired(path)
    except OSError as error:
        raise UsageError(f"cannot write to folder '{folder}': {error.strerror or error}",
                         "free disk space or grant permission there, or choose another "
                         f"'{option}'") from error
    held = _Held(threading.get_ident(), descriptor)
    try:
        if own is False or real in _held:
            raise UsageError(f"folder '{shown_path(folder)}' is in use by {_holder(descriptor)}",
                             f"wait until it ends, or choose another '{option}'")
        if own is None:
            report(f"the file system of folder '{folder}' has no locks: make sure that no other "
                   "training uses the folder")
        _held[real] = held
        try:
            _sign(descriptor)
            with _uploading(folder, option, report):
                yield
        finally:
            del _held[real]
            with suppress(OSError):  # while it is still locked
                if is_at(held.descriptor, path):
                    path.unlink()
    finally:
        os.close(held.descriptor)


@contextmanager
def _uploading(folder: Path, option: str, report: Callable[[str], None]) -> Iterator[None]:
    """Hold the lease of the store that a folder is copied to, and copy to it, if there is one."""
    stored = on_store(folder)
    if stored is None:
        yield
        return
    with leased(stored.store, option, report, stored.lose) as taken:
        stored.taken = taken
        stored.begin()
        try:
            yield
        finally:
            stored.close()


def check_held(folder: Path) -> None:
    """Check that no other training uses a folder that this process has locked.

    This can happen if the folder was removed: it is locked again.

    Raises:
        IpucnnError: another training uses it.
    """
    held, path = _held.get(os.path.realpath(str(folder))), folder / FILE
    if held is None:
        return
    with suppress(OSError):  # reported when something is written there
        if is_at(held.descriptor, path):
            return
        descriptor, own = _acquired(path)
        if own is False:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise IpucnnError(f"folder '{shown_path(folder)}' was removed, and is now in use by "
                              f"{holder}", "start this training again with another folder")
        os.close(held.descriptor)
        held.descriptor = descriptor
        _sign(descriptor)


def _acquired(path: Path) -> Tuple[int, Optional[bool]]:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    while True:
        descriptor = os.open(str(path), flags, 0o666)
        try:
            own = lock(descriptor)
        except OSError:
            os.close(descriptor)
            raise
        if own is False or is_at(descriptor, path):
            return descriptor, own
        os.close(descriptor)  # the owner has just removed it


def _sign(descriptor: int) -> None:
    holder = {"process": os.getpid(), "host": socket.gethostname(),
              "command": " ".join(["ipucnn", *command()[1:]])[:200]}
    with suppress(OSError):  # the disk may be full
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(holder).encode())


def _holder(descriptor: int) -> str:
    try:
        holder = parsed_json(os.read(descriptor, 4096))
        where = "" if holder["host"] == socket.gethostname() else f" on {holder['host']!r}"
        return f"another training, process {int(holder['process'])}{where}: " \
               f"{str(holder['command'])!r}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another training"
