"""Records the finished shards of a conversion, so that it can be resumed after a kill.

The record is a hidden file in the target with a line of JSON per finished shard, after a line with
the origin of the shards. It is removed when the conversion is complete.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

from ipucnn.core.documents import parsed_json
from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.files import read_limited
from ipucnn.data.formats.convert import difference
from ipucnn.plugins.datasets._webdataset.shard_metadata import LIMIT, Shard
from ipucnn.plugins.datasets._webdataset.tar import cannot_write

FILE = ".conversion"

ANOTHER = "choose another folder with '--target', or remove it first"


@dataclass(frozen=True)
class Finished:
    """A finished shard.

    Attributes:
        split: the split that it belongs to.
        number: within its split.
        begin: position of its first sample.
        end: position after its last sample.
        shard: the file.
    """

    split: str
    number: int
    begin: int
    end: int
    shard: Shard


class Record:
    """The record file, opened.

    Args:
        target: the folder.
        origin: source and settings of the conversion.

    Raises:
        UsageError: existing shards have another origin.
        DataError: the file cannot be read or written.
    """

    def __init__(self, target: Path, origin: Dict[str, Any]) -> None:
        self._path = target / FILE
        self._lock = threading.Lock()
        self._finished: Dict[Tuple[str, int], Finished] = {}
        try:
            # the last line may be truncated by a kill
            lines = [line for line in self._content() if line.endswith(b"\n")]
            if lines:
                self._read(lines, origin)
            self._file = self._path.open("ab", buffering=0)
            self._file.truncate(sum(map(len, lines)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"cannot use {str(self._path)!r}: {error}", ANOTHER) from error
        if not lines:
            try:
                self._append(origin)
            except DataError:
                self.close()
                raise

    def _content(self) -> List[bytes]:
        try:
            return read_limited(self._path, LIMIT).splitlines(keepends=True)
        except FileNotFoundError:
            return []

    def _read(self, lines: List[bytes], origin: Dict[str, Any]) -> None:
        found = difference(parsed_json(lines[0]), origin)
        if found:
            raise UsageError(f"target {str(self._path.parent)!r} holds the beginning of another "
                             f"conversion: {found}", "repeat the call that began it, or " + ANOTHER)
        for line in lines[1:]:
            row = parsed_json(line)
            done = Finished(**{**row, "shard": Shard(**row["shard"])})
            place = self._path.parent / done.shard.name
            if place.is_file() and place.stat().st_size == done.shard.bytes:
                self._finished[done.split, done.number] = done

    def get(self, split: str, number: int) -> Optional[Finished]:
        """Return a shard; None when it is not finished."""
        return self._finished.get((split, number))

    def add(self, done: Finished) -> None:
        """Record that a shard is finished.

        Raises:
            DataError: the file cannot be written.
        """
        with self._lock:
            self._append(asdict(done))
            self._finished[done.split, done.number] = done

    def names(self) -> Set[str]:
        """Return the names of the finished shards."""
        return {done.shard.name for done in self._finished.values()}

    def of(self, split: str) -> Tuple[Finished, ...]:
        """Return the shards of a split in their order."""
        return tuple(self._finished[key] for key in sorted(self._finished) if key[0] == split)

    def close(self) -> None:
        """Close the file without removing it."""
        self._file.close()

    def remove(self) -> None:
        """Close and remove the file."""
        self.close()
        self._path.unlink()

    def _append(self, row: Dict[str, Any]) -> None:
        line = json.dumps(row).encode() + b"\n"
        before = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line):]
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):  # another thread may succeed with its line
                self._file.truncate(before)
            raise cannot_write(str(self._path), error) from error
