"""What a conversion has finished, so that it can be gone on with after a kill at any moment.

A hidden file of the target with a line of JSON per finished shard, after one that says what the
shards are made from. It goes when the conversion is complete.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

from ipucnn.core.errors import DataError, UsageError
from ipucnn.data.formats.convert import difference
from ipucnn.plugins.datasets._webdataset.metadata import Shard
from ipucnn.plugins.datasets._webdataset.tar import cannot_write

FILE = ".conversion"

ANOTHER = "choose another folder with '--target', or remove it first"


@dataclass(frozen=True)
class Finished:
    """A shard that is complete.

    Attributes:
        split: that it belongs to.
        number: within its split.
        begin: position of its first sample.
        end: of the first one that is not in it.
        shard: the file.
    """

    split: str
    number: int
    begin: int
    end: int
    shard: Shard


class Record:
    """The file, open.

    Args:
        target: the folder.
        origin: what the shards are made from and how.

    Raises:
        UsageError: the shards that are there are made from something else.
        DataError: the file cannot be read or written.
    """

    def __init__(self, target: Path, origin: Dict[str, Any]) -> None:
        self._path = target / FILE
        self._lock = threading.Lock()
        self._finished: Dict[Tuple[str, int], Finished] = {}
        try:
            # a kill may have cut the last line
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
            return self._path.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return []

    def _read(self, lines: List[bytes], origin: Dict[str, Any]) -> None:
        found = difference(json.loads(lines[0]), origin)
        if found:
            raise UsageError(f"target {str(self._path.parent)!r} holds the beginning of another "
                             f"conversion: {found}", "repeat the call that began it, or " + ANOTHER)
        for line in lines[1:]:
            row = json.loads(line)
            done = Finished(**{**row, "shard": Shard(**row["shard"])})
            place = self._path.parent / done.shard.name
            if place.is_file() and place.stat().st_size == done.shard.bytes:
                self._finished[done.split, done.number] = done

    def get(self, split: str, number: int) -> Optional[Finished]:
        """Return a shard; None when it is not finished."""
        return self._finished.get((split, number))

    def add(self, done: Finished) -> None:
        """Note that a shard is finished.

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
        """Close the file, which stays."""
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
            with suppress(OSError):  # another thread may be more lucky with its line
                self._file.truncate(before)
            raise cannot_write(str(self._path), error) from error
