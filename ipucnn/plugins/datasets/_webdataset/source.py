"""Where shards come from."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import List, Optional, Sequence

from ipucnn.core.errors import DataError
from ipucnn.data import DatasetRequest
from ipucnn.data.formats.recognition import is_url
from ipucnn.data.image_files import printable
from ipucnn.data.remote.shard_cache import RemoteFiles
from ipucnn.data.remote.transfer import shown
from ipucnn.plugins.datasets._webdataset.metadata import FILE, Shard
from ipucnn.plugins.datasets._webdataset.shard_index import File, Unreadable

_VERIFY = "'ipucnn data verify' names all shards that are missing or damaged; copy them anew"

_TRIES = 10  # a copy may leave a small cache before it is opened


class Source(ABC):
    """The files of a dataset of shards. It is pickled for worker processes."""

    @abstractmethod
    def shown(self, name: str) -> str:
        """Return what the user is to see of a file."""

    @abstractmethod
    def text(self, name: str) -> str:
        """Return the content of a small file.

        Raises:
            DataError: it cannot be read.
        """

    @abstractmethod
    def check(self, shards: Sequence[Shard]) -> None:
        """Look at the start whether the shards are as they were written, if that costs little.

        Raises:
            DataError: one is missing or has another size.
        """

    @abstractmethod
    def open(self, shard: Shard) -> File:
        """Return a shard, opened.

        Raises:
            DataError: it cannot be had.
            Unreadable: it cannot be opened.
        """

    def ahead(self, shard: Shard) -> None:  # noqa: B027 - for those that have to fetch it
        """Prepare for a shard that will be opened soon."""


class Folder(Source):
    """Shards on this machine."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def shown(self, name: str) -> str:
        """Return the path of a file."""
        return printable(self.path(name))

    def text(self, name: str) -> str:
        """Return the content of a file."""
        path = self.path(name)
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError as error:
            cause = (error.strerror or str(error)).lower()
            raise DataError(f"cannot read {path!r}: {cause}",
                            "name a folder that 'ipucnn data convert' made") from error

    def names(self) -> List[str]:
        """Return the names of all files, sorted.

        Raises:
            DataError: they cannot be listed.
        """
        try:
            return sorted(os.listdir(self.folder))
        except OSError as error:
            cause = (error.strerror or str(error)).lower()
            raise DataError(f"cannot list folder {self.folder!r}: {cause}") from error

    def check(self, shards: Sequence[Shard]) -> None:
        """Compare the sizes of the files."""
        for shard in shards:
            problem = self.problem(shard)
            if problem:
                raise DataError(problem, _VERIFY)

    def problem(self, shard: Shard) -> str:
        """Return what the size of a shard tells: it is missing or not as written; empty if not."""
        shown = repr(self.shown(shard.name))
        try:
            size = os.stat(self.path(shard.name)).st_size
        except OSError as error:
            return (f"shard {shown} is missing" if isinstance(error, FileNotFoundError) else
                    f"shard {shown}: {(error.strerror or str(error)).lower()}")
        if size == shard.bytes:
            return ""
        how = "is truncated" if size < shard.bytes else "has changed"
        return f"shard {shown} {how}: it has {size:,} bytes and was written with {shard.bytes:,}"

    def open(self, shard: Shard) -> File:
        """Return a shard, opened."""
        return File(self.path(shard.name))

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return os.path.join(self.folder, name)


class Server(Source):
    """Shards below a URL, which are read from copies in a cache.

    Args:
        url: of the folder with `metadata.json`.
        cache_dir: folder for the copies; the user's cache when None.
        cache_bytes: how much it may hold.
    """

    def __init__(self, url: str, cache_dir: Optional[str], cache_bytes: Optional[int]) -> None:
        self._files = RemoteFiles(url, cache_dir, cache_bytes)

    def shown(self, name: str) -> str:
        """Return the URL of a file, without what is secret."""
        return shown(self._files.url(name))

    def text(self, name: str) -> str:
        """Return the content of a file, as the server has it now."""
        return self._files.text(name)

    def check(self, shards: Sequence[Shard]) -> None:
        """Leave it to the downloads: there would be as many requests as shards."""

    def open(self, shard: Shard) -> File:
        """Return a copy, opened."""
        for left in reversed(range(_TRIES)):
            path = self._files.path(shard.name, shard.bytes, shard.md5)
            try:
                return File(path)
            except Unreadable:
                if not left or os.path.exists(path):
                    raise
        raise AssertionError  # the last one raised

    def ahead(self, shard: Shard) -> None:
        """Begin to download a shard."""
        self._files.ahead(shard.name, shard.bytes, shard.md5)


def source_of(request: DatasetRequest) -> Source:
    """Return where the shards of a dataset come from.

    Raises:
        DataError: no folder is named, or it is none of shards.
    """
    folder = request.data_dir
    if folder is None:
        raise DataError("dataset 'webdataset' needs a folder", "name it with '--data-dir'")
    if is_url(folder):
        return Server(folder, request.cache_dir, request.cache_bytes)
    if not os.path.isdir(folder):
        raise DataError(f"folder {folder!r} does not exist",
                        f"name a folder of shards with its '{FILE}'")
    return Folder(folder)
