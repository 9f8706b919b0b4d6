"""Sources of shards: a local folder or a server."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import TYPE_CHECKING, List, Optional, Sequence

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.files import name_text, read_limited
from ipucnn.data import DatasetRequest
from ipucnn.data.formats.recognition import is_url
from ipucnn.data.remote.shard_cache import RemoteFiles
from ipucnn.data.remote.transfer import shown
from ipucnn.plugins.datasets._webdataset.shard_index import File, Unreadable
from ipucnn.plugins.datasets._webdataset.shard_metadata import FILE, LIMIT, Shard

if TYPE_CHECKING:
    from ipucnn.plugins.datasets.webdataset import WebDatasetOptions

_VERIFY = "'ipucnn data verify' names all shards that are missing or damaged; copy them again"

_TRIES = 10  # a copy may be evicted from a small cache before it is opened


class Source(ABC):
    """The files of a dataset of shards. It can be pickled for worker processes."""

    @abstractmethod
    def shown(self, name: str) -> str:
        """Return the name of a file for messages."""

    @abstractmethod
    def text(self, name: str) -> str:
        """Return the content of a small file.

        Raises:
            DataError: it cannot be read.
        """

    @abstractmethod
    def check(self, shards: Sequence[Shard]) -> None:
        """Check that the shards are unchanged, if that is cheap.

        Raises:
            DataError: one is missing or has another size.
        """

    @abstractmethod
    def open(self, shard: Shard) -> File:
        """Return a shard, opened.

        Raises:
            DataError: it cannot be fetched.
            Unreadable: it cannot be opened.
        """

    def ahead(self, shard: Shard) -> None:  # noqa: B027 - for sources that have to fetch it
        """Prefetch a shard that will be opened soon."""

    def version(self, shards: Sequence[Shard]) -> str:  # noqa: ARG002 - for those who can
        """Return a text that changes when a shard changes; empty if this cannot be detected."""
        return ""

    def read_in(self, shards: Sequence[Shard]) -> str:  # noqa: ARG002 - for those who can
        """Request that the system reads shards into the page cache; return an error or nothing."""
        return ""


class Folder(Source):
    """Shards on this machine."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def shown(self, name: str) -> str:
        """Return the path of a file."""
        return name_text(self.path(name))

    def text(self, name: str) -> str:
        """Return the content of a file."""
        path = self.path(name)
        try:
            return read_limited(path, LIMIT).decode("utf-8", errors="replace")
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
        """Return an error text if a shard is missing or has another size, else an empty one."""
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

    def version(self, shards: Sequence[Shard]) -> str:
        """Return the paths, sizes and times of the files."""
        lines = []
        for shard in shards:
            path = os.path.abspath(self.path(shard.name))
            with suppress(OSError):  # reported when it is read
                found = os.stat(path)
                lines.append(f"{path!r} {found.st_size} {found.st_mtime_ns} "
                             f"{found.st_ctime_ns}")
        return "\n".join(lines)

    def open(self, shard: Shard) -> File:
        """Return a shard, opened."""
        return File(self.path(shard.name))

    def read_in(self, shards: Sequence[Shard]) -> str:
        """Request that the system reads the files in the background; returns immediately."""
        advise = getattr(os, "posix_fadvise", None)
        if advise is None:
            return "this system cannot read files in advance"
        for shard in shards:
            try:
                file = os.open(self.path(shard.name), os.O_RDONLY)
            except OSError:
                continue  # reported when it is read
            try:
                advise(file, 0, 0, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(file)
        return ""

    def path(self, name: str) -> str:
        """Return the path of a file."""
        return os.path.join(self.folder, name)


class Server(Source):
    """Shards below a URL, read from copies in a cache.

    Args:
        url: of the folder with `metadata.json`.
        cache_dir: folder for the copies; the user's cache when None.
        cache_bytes: size limit of the cache.
    """

    def __init__(self, url: str, cache_dir: Optional[str], cache_bytes: Optional[int]) -> None:
        self._files = RemoteFiles(url, cache_dir, cache_bytes)

    def shown(self, name: str) -> str:
        """Return the URL of a file, without its secret parts."""
        return shown(self._files.url(name))

    def text(self, name: str) -> str:
        """Return the current content of a file on the server."""
        return self._files.text(name, LIMIT)

    def check(self, shards: Sequence[Shard]) -> None:
        """Do nothing: checking would take one request per shard; downloads check instead."""

    def open(self, shard: Shard) -> File:
        """Return a copy, opened."""
        for left in reversed(range(_TRIES)):
            path = self._files.path(shard.name, shard.bytes, shard.md5)
            try:
                file = File(path, follow=False)
            except Unreadable:
                if not left or os.path.lexists(path):
                    raise
                continue
            copy = (path, file.identity)
            if self._files.checked(copy) or file.md5() == shard.md5:
                self._files.remember(copy)
                return file
            with suppress(OSError):  # it was modified: fetch it again
                os.unlink(path)
        raise Unreadable("its copy in the cache changes again and again",
                         "name another folder with '--data-cache-dir'")

    def ahead(self, shard: Shard) -> None:
        """Start downloading a shard."""
        self._files.ahead(shard.name, shard.bytes, shard.md5)


def source_of(request: DatasetRequest, options: WebDatasetOptions) -> Source:
    """Return the source of a dataset's shards.

    Raises:
        DataError: no folder is named, or it does not contain shards.
        UsageError: a cache is named for a local folder.
    """
    folder = request.data_dir
    if folder is None:
        raise DataError("dataset 'webdataset' needs a folder", "name it with '--data-dir'")
    if is_url(folder):
        if options.webdataset_memory_cache_ratio:
            raise UsageError("'--webdataset-memory-cache-ratio' is for shards in a folder, and "
                             "'--data-dir' is a URL", "leave it out: copies are fetched ahead")
        return Server(folder, options.data_cache_dir, options.data_cache_size)
    options.refuse_local()
    if not os.path.isdir(folder):
        what = "is no folder" if os.path.exists(folder) else "does not exist"
        raise DataError(f"{folder!r} {what}", f"name a folder of shards with its '{FILE}'")
    return Folder(folder)
