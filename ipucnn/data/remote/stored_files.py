"""Files on stores: their metadata, and their content, received in several attempts."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Any, Dict

from ipucnn.data.remote.attempts import Failed, Pulse, ours
from ipucnn.data.remote.transfer import Expected

ANYTHING = Expected()
"""Nothing is known of the content."""

BLOCK = 1 << 22
"""Bytes of one request."""

_VERSION = ("ETag", "etag", "md5Hash", "blob_id", "oid", "mtime", "LastModified", "last_modified",
            "updated", "modified", "created")

_TIMES = ("LastModified", "last_modified", "mtime", "modified", "updated", "created")


@dataclass(frozen=True)
class Stored:
    """A file or folder on a store.

    Attributes:
        name: the last part of its path.
        folder: whether it is a folder.
        size: of a file, in bytes.
        version: changes with the content, if the store provides one; else empty.
        modified: when it was written, in seconds since the epoch; 0 if that is not known.
    """

    name: str
    folder: bool = False
    size: int = 0
    version: str = ""
    modified: float = 0.0


class Content:
    """The content received so far, by several attempts."""

    def __init__(self, file: IO[bytes], expected: Expected) -> None:
        self._file, self._expected = file, expected
        self._version = ""
        self._restart()

    def _restart(self) -> None:
        self._received = 0
        self._digest = hashlib.md5()

    def receive(self, fs: Any, path: str, pulse: Pulse) -> Stored:
        """Receive the missing content."""
        stored = self._looked_up(fs, path)
        if stored.version != self._version or not stored.version:
            self._restart()
        self._version = stored.version
        blocks = 0
        while self._received < stored.size:
            end = min(self._received + BLOCK, stored.size)
            block = fs.cat_file(path, start=self._received, end=end)
            self._store(block[:end - self._received], pulse)
            blocks += 1
            if self._received < end:
                raise Failed(f"the store ended it after {self._received} of {stored.size} bytes")
        if blocks > 1 and self._looked_up(fs, path).version != stored.version:
            self._restart()
            raise Failed("it was replaced meanwhile")
        found = self._digest.hexdigest()
        if self._expected.md5 and found != self._expected.md5.lower():
            self._restart()
            raise Failed(f"its MD5 is {found}, expected {self._expected.md5}")
        with ours():
            self._file.truncate(stored.size)
        return stored

    def _looked_up(self, fs: Any, path: str) -> Stored:
        stored = stored_file(fresh(fs).info(path), path.rpartition("/")[2])
        if stored.folder:
            raise Failed("it is a folder", final=True)
        if self._expected.size is not None and stored.size != self._expected.size:
            raise Failed(f"it has {stored.size} bytes, expected {self._expected.size}")
        if self._expected.limit is not None and stored.size > self._expected.limit:
            raise Failed(f"it has more than {self._expected.limit:,} bytes, the limit for such a "
                          "file", final=True)
        return stored

    def _store(self, block: bytes, pulse: Pulse) -> None:
        with pulse.lock, ours():  # an abandoned attempt must not write any more
            pulse.beat()
            self._file.seek(self._received)
            self._file.write(block)
            self._digest.update(block)
            self._received += len(block)


def fresh(fs: Any) -> Any:
    """Return a file system with an empty cache of listings."""
    fs.invalidate_cache()
    return fs


def stored_file(info: Dict[str, Any], name: str) -> Stored:
    """Return the metadata of a file from what a file system returns."""
    version = next((str(info[key]) for key in _VERSION if info.get(key) is not None), "")
    return Stored(name, info.get("type") == "directory", int(info.get("size") or 0), version,
                  _modified(info))


def _modified(info: Dict[str, Any]) -> float:
    for key in _TIMES:
        value = info.get(key)
        if isinstance(value, str):
            with suppress(ValueError):
                value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return 0.0
