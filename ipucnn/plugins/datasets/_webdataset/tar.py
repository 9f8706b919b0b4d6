"""Writes one shard; the library `webdataset` makes the archive.

Source of the layout of samples and their keys: https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, Optional

from ipucnn.core.errors import DataError
from ipucnn.data.formats.samples import Sample
from ipucnn.plugins.datasets._webdataset.shard_metadata import FILE, Shard

_BLOCK = 512  # a member is a header block, and its content in whole blocks
_RECORD = 20 * _BLOCK  # an archive ends with two blocks of zeros, in whole records
_PARTIAL = re.compile(rf"\.((train|validation)-\d{{6,}}\.tar|{re.escape(FILE)})\.\w+\.partial")


def members(sample: Sample) -> Dict[str, bytes]:
    """Return the content of a sample's members by their suffix."""
    result = {sample.suffix: sample.data}
    if sample.label is not None:
        result["cls"] = str(sample.label).encode()
    known: Dict[str, Any] = {}
    if sample.box is not None:
        known["bbox"] = list(sample.box)
    if sample.image_id is not None:
        known["image_id"] = sample.image_id
    if known:
        result["json"] = json.dumps(known).encode()
    return result


def is_partial(name: str) -> bool:
    """Return whether a file is a partial one left by a killed conversion."""
    return bool(_PARTIAL.fullmatch(name))


def cannot_write(path: str, error: OSError) -> DataError:
    """Return the error of a file that cannot be written."""
    return DataError(f"cannot write {path!r}: {(error.strerror or str(error)).lower()}",
                     "free disk space or grant permission there; the same command continues from "
                     "here")


class ShardFile:
    """A shard that appears under its name when it is complete; a context manager.

    Its content depends on the samples only.

    Args:
        folder: the target folder.
        name: of the file.

    Attributes:
        samples: number of samples in it.

    Raises:
        DataError: it cannot be written; its methods raise it, too.
    """

    def __init__(self, folder: Path, name: str) -> None:
        from webdataset import TarWriter

        self.samples = 0
        self._path = folder / name
        self._partial = folder / f".{name}.{os.getpid()}.partial"
        self._content = 0
        try:
            self._file: Optional[_Digested] = _Digested(self._partial)
        except OSError as error:
            raise cannot_write(str(self._path), error) from error
        # time and owner would make every file different
        self._tar = TarWriter(self._file, user="", group="", mtime=0, encoder=False)

    def __enter__(self) -> ShardFile:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.abandon()
        with suppress(OSError):  # after success it has its final name
            self._partial.unlink()

    def size_with(self, parts: Dict[str, bytes]) -> int:
        """Return the size of the file in bytes if this sample is its last."""
        content = self._content + _blocks(parts)
        return -(-(content + 2 * _BLOCK) // _RECORD) * _RECORD

    def add(self, position: int, parts: Dict[str, bytes]) -> None:
        """Write the members of the sample at a position of its split."""
        try:
            self._tar.write({"__key__": f"{position:09d}", **parts})
        except OSError as error:
            raise cannot_write(str(self._path), error) from error
        self._content += _blocks(parts)
        self.samples += 1

    def finish(self) -> Shard:
        """Give the file its final name and return its record."""
        assert self._file is not None
        try:
            self._tar.close()
            self._file.close()
            os.replace(str(self._partial), str(self._path))
        except OSError as error:
            raise cannot_write(str(self._path), error) from error
        file, self._file = self._file, None
        return Shard(self._path.name, self.samples, file.size, file.md5.hexdigest())


class _Digested:
    """A file whose digest is computed while it is written."""

    def __init__(self, path: Path) -> None:
        self.md5 = hashlib.md5()
        self.size = 0
        self._abandoned = False
        self._file = path.open("wb", buffering=1 << 20)

    def write(self, data: bytes) -> None:
        if self._abandoned:  # tarfile writes the rest on garbage collection
            return
        self._file.write(data)
        self.md5.update(data)
        self.size += len(data)

    def close(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        self._abandoned = True
        with suppress(OSError):  # the disk may be full
            self._file.close()


def _blocks(parts: Dict[str, bytes]) -> int:
    return sum((1 + -(-len(data) // _BLOCK)) * _BLOCK for data in parts.values())
