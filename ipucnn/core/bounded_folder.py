"""Folders of the cache with a limit: the entries used last are kept for later runs.

An entry is in use while a process holds a shared lock on it, which ends with the process. Entries
in use by other processes are never removed, even if they exceed the limit.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple

from ipucnn.core.documents import LARGEST_JSON, parsed_json
from ipucnn.core.files import is_own, private_folder, read_limited
from ipucnn.core.staging import is_at, lock, staged

KEPT_RECORDS = 1000
"""A folder of records for later runs keeps so many of them."""

GREATEST_DEFAULT = 20 * 10**9
"""Default limit in bytes, on a disk with at least ten times as much free space."""

_HELD = 64
"""A process marks so many entries as in use; those it used before may be removed."""

_FINE = 60.0
"""Seconds by which a last use may be off: the time of a file is part of its identity elsewhere."""

_RECENT = 3600.0
"""Seconds since its last use in which an entry that cannot be locked counts as in use."""

_held: Dict[Tuple[int, Path], int] = {}
"""Descriptors with a shared lock, by process (a fork inherits them) and file, oldest first."""


@dataclass(frozen=True)
class BoundedFolder:
    """A folder whose entries used longest ago make room for others.

    Attributes:
        path: the folder, which may not exist yet.
        patterns: of the files that stand for an entry each: the modification time of such a file
            is the last use of its entry.
        folders: whether an entry is the whole folder of its file.
        most_bytes: limit of the total size.
        most_entries: limit of the number of entries. Without any limit, `share_of_disk` is that of
            the size.
    """

    path: Path
    patterns: Tuple[str, ...]
    folders: bool = False
    most_bytes: Optional[int] = None
    most_entries: Optional[int] = None

    def make_room(self, coming: int = 0) -> None:
        """Remove entries, those used longest ago first, until the rest is within the limits.

        Several processes may call this at once.

        Args:
            coming: bytes to leave free for an entry that is not there yet; with 0, the newest
                entry stays whatever its size.

        Raises:
            OSError: the folder cannot be read.
        """
        with self.alone():
            entries = self._entries()
            used, count = sum(size for _, size, _ in entries), len(entries)
            most = self.most_bytes
            if most is None and self.most_entries is None:
                most = share_of_disk(self.path, used)
            used += coming
            for _, size, file in entries if coming else entries[:-1]:
                if (most is None or used <= most) \
                        and (self.most_entries is None or count <= self.most_entries):
                    return
                with suppress(OSError):  # those of other users
                    if self.remove(file):
                        used, count = used - size, count - 1

    def remove(self, file: Path) -> bool:
        """Remove an entry, given its file; return False if another process uses it.

        Raises:
            OSError: it cannot be removed.
        """
        own = _own(file)
        try:
            descriptor = _opened(file) if own is None else own
        except FileNotFoundError:
            descriptor = None
        try:
            if descriptor is not None and not self._free(descriptor, own is not None):
                if own is not None:
                    use(file)  # as it was
                return False
            with suppress(FileNotFoundError):
                file.unlink()  # first, so that what a killed process leaves is no entry
            if self.folders:
                with suppress(FileNotFoundError):
                    for other in file.parent.iterdir():
                        other.unlink()
                    file.parent.rmdir()
            return True
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _free(self, descriptor: int, own: bool) -> bool:
        free = lock(descriptor)
        if free is None:  # no locks here
            return own or time.time() - os.fstat(descriptor).st_mtime > _RECENT
        return free

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process changes which entries there are, and keep others waiting."""
        if not self.path.is_dir():
            yield
            return
        descriptor = os.open(str(self.path), os.O_RDONLY)
        try:
            lock(descriptor, wait=True)
            yield
        finally:
            os.close(descriptor)

    def _entries(self) -> List[Tuple[int, int, Path]]:
        """Return last use, size and file of each entry, those used longest ago first."""
        found = []
        for file in (file for pattern in self.patterns for file in self.path.glob(pattern)):
            with suppress(FileNotFoundError):
                size = sum(other.stat().st_size for other in file.parent.iterdir()) \
                    if self.folders else file.stat().st_size
                found.append((file.stat().st_mtime_ns, size, file))
        return sorted(found)


def use(file: Path) -> bool:
    """Count this as the last use of an entry, and mark it as in use by this process.

    Args:
        file: that stands for the entry.

    Returns:
        Whether the entry is there, and is the user's.
    """
    descriptor = _own(file)
    try:
        if descriptor is None:
            descriptor = _opened(file)
            # another process removes it; or another user has put it into a shared cache
            if lock(descriptor, shared=True) is False or not is_at(descriptor, file) \
                    or not is_own(os.fstat(descriptor)):
                os.close(descriptor)
                return False
    except OSError:
        return False
    _held[os.getpid(), file] = descriptor
    for other in list(_held)[:-_HELD]:
        unused = _held.pop(other, None)
        if unused is not None:
            os.close(unused)
    with suppress(OSError):  # the cache may be read-only
        if time.time() - os.fstat(descriptor).st_mtime > _FINE:
            os.utime(str(file))
    return True


def keep_record(path: Path, value: Any) -> bool:
    """Write a value as JSON for later runs; return False if it cannot be written.

    Its folder is private to the user, and keeps the newest `KEPT_RECORDS` of its JSON files.
    """
    try:
        private_folder(path.parent)
        with staged(path) as partial:
            partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    except OSError:
        return False
    with suppress(OSError):
        BoundedFolder(path.parent, ("*.json",), most_entries=KEPT_RECORDS).make_room()
    return True


def kept_record(path: Path) -> Any:
    """Return a value that `keep_record` has written.

    Raises:
        OSError: there is none, or another user has written it.
        ValueError: it is damaged.
    """
    if not is_own(os.stat(str(path))):
        raise PermissionError(errno.EPERM, "it belongs to another user", str(path))
    return parsed_json(read_limited(path, LARGEST_JSON))


def share_of_disk(path: Path, used: int) -> int:
    """Return the default limit of a folder: 20 GB, or a tenth of the free space if that is less.

    Args:
        path: of the folder, or one on the same disk.
        used: bytes in the folder, which could be free.
    """
    return min(GREATEST_DEFAULT, (shutil.disk_usage(str(path)).free + used) // 10)


def _own(file: Path) -> Optional[int]:
    """Take the descriptor by which this process uses a file; None if there is none of this file."""
    descriptor = _held.pop((os.getpid(), file), None)
    if descriptor is None or is_at(descriptor, file):
        return descriptor
    os.close(descriptor)  # of one that was replaced
    return None


def _opened(file: Path) -> int:
    # some network file systems lock files exclusively only if they are open for writing
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        return os.open(str(file), os.O_RDWR | flags)
    except PermissionError:
        return os.open(str(file), os.O_RDONLY | flags)
