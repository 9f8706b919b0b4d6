"""Files and folders under a temporary name, locked by the process that writes them.

A lock is released when its process ends. Unlocked files were left by a killed process, and the next
call removes them.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Callable, Iterator, Optional, Tuple

SUFFIX = ".partial"
"""End of the names of unfinished files; they begin with a dot and the final name."""

_OLD = 24 * 3600.0
"""Seconds after which a file on a file system without locks is regarded as abandoned."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF)


def lock(descriptor: int, shared: bool = False, wait: bool = False) -> Optional[bool]:
    """Lock an open file or folder for this process, which releases the lock by closing it.

    Args:
        descriptor: of the file or folder.
        shared: whether other processes may have such a lock as well.
        wait: whether to wait until no other process has it locked.

    Returns:
        False if another process has locked it; None where the system or its file system, such as
        some network file systems, has no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
                    | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def partial_name(name: str) -> str:
    """Return a new name for the unfinished file that will have the name `name`."""
    return f".{name}.{secrets.token_hex(4)}{SUFFIX}"


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield the path of a new file beside `target`, which it replaces at the end of the block.

    It is synced first, so that a file with the final name is complete. After an exception, it is
    removed.
    """
    sweep(target.parent, lambda name: _is_partial(name, target.name))

    def make() -> Tuple[int, str]:
        # not with `tempfile`, whose files only their owner can read
        path = target.with_name(partial_name(target.name))
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        return os.open(str(path), flags, 0o666), str(path)

    descriptor, path = _locked(make)
    try:
        yield path
        os.fsync(descriptor)
        os.replace(str(path), str(target))
        sync(target.parent)
    finally:
        with suppress(OSError):  # after success it has its final name
            path.unlink()
        os.close(descriptor)


@contextmanager
def scratch(parent: Path, name: str) -> Iterator[Path]:
    """Yield the path of a new folder in `parent`, which is removed at the end of the block."""
    sweep(parent, lambda found: _is_partial(found, name))

    def make() -> Tuple[int, str]:
        while True:
            path = tempfile.mkdtemp(SUFFIX, f".{name}.", str(parent))
            with suppress(FileNotFoundError):  # another process has removed it as abandoned
                return os.open(path, os.O_RDONLY), path

    descriptor, path = _locked(make)
    try:
        yield path
    finally:
        shutil.rmtree(str(path), ignore_errors=True)
        os.close(descriptor)


def sweep(folder: Path, matches: Callable[[str], bool]) -> None:
    """Remove unfinished files of killed processes in a folder.

    Files in use are kept; without locks, files of the last day. Failures are ignored.

    Args:
        folder: where to look.
        matches: whether a name is one of those to remove.
    """
    with suppress(OSError):
        for name in os.listdir(str(folder)):
            if matches(name):
                with suppress(OSError):
                    _remove(folder / name)


def sync(path: Path) -> None:
    """Make a file durable across a power failure, or the renaming of what is in a folder.

    Nothing happens where the system does not support it.
    """
    with suppress(OSError):
        descriptor = os.open(str(path), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _locked(make: Callable[[], Tuple[int, str]]) -> Tuple[int, Path]:
    """Create a file or folder and lock it, before another process regards it as abandoned."""
    while True:
        descriptor, path = make()
        # another process may have locked it at this moment in order to remove it
        if lock(descriptor) is not False and is_at(descriptor, Path(path)):
            return descriptor, Path(path)
        os.close(descriptor)


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether an open file is still the one that a path names."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(str(path)))
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    # does not follow a link or block on a FIFO
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(str(path), flags)
    try:
        free = lock(descriptor)
        if free is None:
            free = time.time() - os.fstat(descriptor).st_mtime > _OLD
        if free:
            shutil.rmtree(str(path)) if path.is_dir() else path.unlink()
    finally:
        os.close(descriptor)


def _is_partial(name: str, final: str) -> bool:
    return name.startswith(f".{final}.") and name.endswith(SUFFIX)
