"""Folders of files on a store: listed once, and read through a bounded folder of copies.

A copy ends with a digest of its content and is checked against it whenever it is read. The bytes
in use are counted in a file that all processes share, and counted again when they reach the limit:
the folder may hold as many files as a data set has images.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from ipucnn.core.bounded_folder import share_of_disk
from ipucnn.core.errors import DataError
from ipucnn.core.files import cache_dir as user_cache
from ipucnn.core.files import expanded_path, new_file, private_folder
from ipucnn.data.remote.stored_files import Stored
from ipucnn.data.remote.stores import Store
from ipucnn.data.remote.transfer import shown

FOLDER = "files"
"""Subfolder of the cache folder; nothing else there is read."""

REUSED = 60.0
"""Seconds for which a process reuses a listing for another split or command."""

_LISTERS = 16
_FULL = 0.9  # of the limit, to which files are removed when it is reached
_DIGEST = 32
_UNFINISHED = ".part"
_OLD = 3600.0  # seconds after which a file is not being written any more
log = logging.getLogger("ipucnn.store_images")

_Folders = Dict[str, Dict[str, Stored]]
_listings: Dict[str, Tuple[float, _Folders]] = {}


class StoreImages:
    """The files below a folder on a store. Any thread may use it; it can be pickled.

    Paths are URLs without credentials.

    Args:
        url: of the folder.
        cache_dir: folder for copies; the user's cache when None.
        cache_bytes: size of the cache; if None, 20 GB, or a tenth of the free
            disk space if that is less.

    Attributes:
        root: the URL of the folder, without credentials.

    Raises:
        IpucnnError: there is no such folder, or it cannot be listed.
    """

    def __init__(self, url: str, cache_dir: Optional[str] = None,
                 cache_bytes: Optional[int] = None) -> None:
        self._store = Store(url)
        self.root = shown(self._store.url)
        place = expanded_path(cache_dir) if cache_dir else user_cache()
        self._copies = _Copies(place / FOLDER, cache_bytes)
        self._folders = _listed(self._store, self.root)
        if not self._folders[self.root]:
            raise DataError(f"there is nothing in folder {self.root!r}", "check the address")

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            DataError: it cannot be fetched, or is too large for an image.
        """
        from ipucnn.data.images import MAX_BYTES

        folder, _, name = path.rpartition("/")
        stored = self._folders.get(folder, {}).get(name)
        if stored is None:
            raise DataError(f"there is no file {path!r}", "check the address")
        if stored.size > MAX_BYTES:
            raise DataError(f"image {path!r} is larger than {MAX_BYTES:,} bytes",
                            "'--skip-bad-samples' leaves such images out")
        key = hashlib.sha256(f"{path}\0{stored.version}\0{stored.size}".encode(
            "utf-8", "surrogateescape")).hexdigest()
        return self._copies.read(key, lambda: self._store.content(
            path[len(self.root) + 1:], stored.size))


def entries_of(folder: str) -> List[Stored]:
    """Return the entries of a folder: from the listing, or else from the store.

    Args:
        folder: its URL; without credentials for one that a `StoreImages` has listed.
    """
    for _, folders in _listings.values():
        if folder in folders:
            return list(folders[folder].values())
    return Store(folder).listing()


def _listed(store: Store, root: str) -> _Folders:
    """Return the entries of all folders below `root`, by the folders' URLs."""
    known = _listings.get(root)
    if known is not None and time.monotonic() - known[0] < REUSED:
        return known[1]
    folders: _Folders = {}
    waiting = [""]
    with ThreadPoolExecutor(_LISTERS, "ipucnn-listing") as pool:
        while waiting:
            further = []
            for below, entries in zip(waiting, pool.map(store.listing, waiting)):
                folders[f"{root}/{below}" if below else root] = {
                    entry.name: entry for entry in entries}
                further += [f"{below}/{entry.name}" if below else entry.name
                            for entry in entries if entry.folder]
            waiting = further
    _listings.clear()  # they may be large, and a command needs one
    _listings[root] = (time.monotonic(), folders)
    return folders


class _Copies:
    """A folder of files with a bounded total size; least recently used files are removed first."""

    def __init__(self, root: Path, limit: Optional[int]) -> None:
        self._root = root
        self._limit = limit
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._useless = False

    def __getstate__(self) -> Dict[str, Any]:
        return {"_root": self._root, "_limit": self._limit}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def read(self, key: str, fetch: Callable[[], bytes]) -> bytes:
        """Return the content for a key: a copy, or else the result of `fetch`, which is stored."""
        path = self._root / key[:2] / key
        content = self._copy(path)
        if content is None:
            content = fetch()
            try:
                self._keep(path, content)
            except OSError as error:  # the image is available nevertheless
                if not self._useless:
                    log.warning("images are not kept in '%s': %s; name another folder with "
                                "'--data-cache-dir'", self._root, error.strerror or error)
                self._useless = True
        return content

    def _copy(self, path: Path) -> Optional[bytes]:
        try:
            file = os.open(str(path), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except OSError:
            return None
        with os.fdopen(file, "rb") as opened:
            found = opened.read()
        content, digest = found[:-_DIGEST], found[-_DIGEST:]
        if hashlib.sha256(content).digest() != digest:
            return None  # it was changed; the fetched one replaces it
        with suppress(OSError):
            os.utime(str(path))
        return content

    def _keep(self, path: Path, content: bytes) -> None:
        private_folder(self._root)
        private_folder(path.parent)
        if not self._reserve(len(content) + _DIGEST):
            return
        part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}{_UNFINISHED}")
        try:
            with new_file(part) as file:
                file.write(content + hashlib.sha256(content).digest())
            os.replace(str(part), str(path))
        finally:
            with suppress(OSError):
                part.unlink()

    def _reserve(self, size: int) -> bool:
        """Add the size of a new file; return whether there is space for it."""
        with self._counting() as counter:
            used = _number(counter)
            if used is None or self._limit is None or used + size > self._limit:
                used = self._tidied(size)
                if self._limit is None or used + size > self._limit:
                    return False
            counter.write_text(str(used + size))
        return True

    def _tidied(self, size: int) -> int:
        """Remove old files until there is space; return the remaining bytes."""
        found = []
        for folder in self._root.iterdir():
            if folder.is_dir():
                with os.scandir(str(folder)) as entries:
                    for entry in entries:
                        with suppress(OSError):
                            status = entry.stat(follow_symlinks=False)
                            found.append((status.st_mtime, status.st_size, entry.path))
        used = sum(size for _, size, _ in found)
        if self._limit is None:
            self._limit = share_of_disk(self._root, used)
        # no removal makes space for a file that is larger than the whole folder may be
        full = size <= self._limit < used + size
        room = int(_FULL * self._limit) - size if full else used
        for changed, length, path in sorted(found):
            left_over = path.endswith(_UNFINISHED)
            if (used > room and not left_over) or (left_over and time.time() - changed > _OLD):
                with suppress(OSError):
                    os.unlink(path)
                    used -= length
        return used

    @contextmanager
    def _counting(self) -> Iterator[Path]:
        from filelock import FileLock

        if self._process != os.getpid():  # a thread of the parent may have held the lock
            self._forget()
        with self._lock, FileLock(str(self._root / "count.lock"), poll_interval=0.002):
            yield self._root / "count"


def _number(path: Path) -> Optional[int]:
    try:
        return int(path.read_text()[:20])
    except (OSError, ValueError):
        return None
