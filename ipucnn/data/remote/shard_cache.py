"""Caches remote dataset files in a bounded folder shared by processes.

A copy gets its final name when it is complete and its MD5 is right. It is checked again before
its first use in a process, in case it was changed since, and no link is followed to it. The folder
is private to the user. One process downloads a file while the others wait; the kernel releases the
lock when the process that holds it ends. The least recently used files are evicted first; open ones
remain readable.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import stat
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Dict, Hashable, Iterator, List, Optional, Set, Tuple
from urllib.parse import quote

from ipucnn.core.bounded_folder import share_of_disk
from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.files import cache_dir as user_cache
from ipucnn.core.files import expanded_path, new_file, private_folder
from ipucnn.data.remote.stores import below, fetched, host_of
from ipucnn.data.remote.transfer import Expected, Patience, shown

FOLDER = "streams"
"""Subfolder of the cache folder; nothing else there is read."""

PATIENCE = Patience()
_REMEMBERED = 60.0  # seconds before a failed download is requested again
_POLL = 0.05
log = logging.getLogger("ipucnn.shard_cache")


class RemoteFiles:
    """The files below a URL.

    Any number of threads may use it. It can be pickled and survives a fork.

    Args:
        base_url: of their folder, on a web server or a store; the query of an http address is
            added to every file's URL.
        cache_dir: folder for copies; the user's cache when None.
        cache_bytes: size of the cache for all servers; when None 20 GB, or a tenth of the free
            disk space if that is less.
        patience: timeout and retry policy; `PATIENCE` when None.

    Raises:
        UsageError: the URL is neither an http or https address nor one of a store.
        UnavailableError: the package of the store is missing.
    """

    def __init__(self, base_url: str, cache_dir: Optional[str] = None,
                 cache_bytes: Optional[int] = None, patience: Optional[Patience] = None) -> None:
        host = host_of(base_url)
        if not host:
            raise UsageError(f"{shown(base_url)!r} is not an http or https address",
                             "serve the files with a web server, or copy them to this machine")
        self.base_url = base_url
        self.patience = patience or PATIENCE
        root = expanded_path(cache_dir) if cache_dir else user_cache()
        self._cache = _Cache(root / FOLDER, cache_bytes, self.patience.longest_silence)
        place = shown(base_url).rstrip("/")
        self._folder = f"{host}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._fetches: Dict[Path, _Fetch] = {}
        self._checked: Set[Hashable] = set()

    def __getstate__(self) -> Dict[str, Any]:
        state = self.__dict__.copy()
        # locks and threads cannot be pickled; another process checks for itself
        del state["_lock"], state["_fetches"], state["_checked"]
        return state

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def url(self, name: str) -> str:
        """Return the URL of a file."""
        return below(self.base_url, name)

    def text(self, name: str, limit: int) -> str:
        """Return the current content of a small file on the server.

        Args:
            name: of the file.
            limit: in bytes; reading a larger file stops there.

        Raises:
            DataError: it cannot be fetched, or is not text.
        """
        content = io.BytesIO()
        fetched(self.url(name), content, self.patience, Expected(limit=limit))
        try:
            return content.getvalue().decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{shown(self.url(name))!r} is not text: {error.reason}",
                            "check the address") from error

    def path(self, name: str, size: int, md5: str) -> str:
        """Return the path of a complete copy of a file, downloading it when there is none.

        The copy may be evicted before it is opened, when space is needed: callers that find no
        file call again.

        Args:
            name: of the file.
            size: in bytes.
            md5: of its content, in hexadecimal digits.

        Raises:
            DataError: it cannot be fetched or stored.
        """
        file = self._file(name, size, md5)
        with self._cache.storing(file):
            self._cache.make_private(file)
        if not file.used():
            self._fetch(file).wait()
        return str(file.path)

    def checked(self, copy: Hashable) -> bool:
        """Return whether a copy was checked by its sum before, in this process."""
        if self._process != os.getpid():
            self._forget()
        return copy in self._checked

    def remember(self, copy: Hashable) -> None:
        """Record that a copy has the right sum."""
        self._checked.add(copy)

    def ahead(self, name: str, size: int, md5: str) -> None:
        """Start downloading a file for a later `path`, unless another download ahead is running.

        Returns immediately; `path` raises any error.
        """
        file = self._file(name, size, md5)
        if not file.complete() and not any(
                fetch.ahead and fetch.is_alive() for fetch in list(self._fetches.values())):
            self._fetch(file, ahead=True)

    def _file(self, name: str, size: int, md5: str) -> _File:
        path = self._cache.root / self._folder / f"{md5[:12]}-{quote(name, safe='')}"
        return _File(self.url(name), path, size, md5)

    def _fetch(self, file: _File, ahead: bool = False) -> _Fetch:
        """Return the download of a file, started unless it is running or has just failed."""
        if self._process != os.getpid():
            self._forget()
        with self._lock:
            fetch = self._fetches.get(file.path)
            if fetch is None or fetch.over:
                for path in [path for path, other in self._fetches.items() if other.over]:
                    del self._fetches[path]
                fetch = self._fetches[file.path] = _Fetch(self._cache, file, self.patience, ahead)
                fetch.start()
            return fetch


@dataclass(frozen=True)
class _File:
    url: str
    path: Path
    size: int
    md5: str

    @property
    def part(self) -> Path:
        return _part(self.path)

    def complete(self) -> bool:
        with suppress(OSError):
            status = self.path.lstat()
            return stat.S_ISREG(status.st_mode) and status.st_size == self.size
        return False

    def used(self) -> bool:
        """Mark the file as used, and return whether it exists."""
        with suppress(OSError):
            os.utime(str(self.path), follow_symlinks=False)
        return self.complete()


class _Fetch(threading.Thread):
    """A download in a daemon thread, which never keeps the process alive."""

    def __init__(self, cache: _Cache, file: _File, patience: Patience, ahead: bool) -> None:
        super().__init__(name="ipucnn-fetch", daemon=True)
        self._cache = cache
        self._file = file
        self._patience = patience
        self.ahead = ahead
        self._error: Optional[Exception] = None
        self._ended = 0.0

    @property
    def over(self) -> bool:
        """Return whether it has ended and can be forgotten."""
        return not self.is_alive() and (
            self._error is None or self.ahead or time.monotonic() - self._ended > _REMEMBERED)

    def wait(self) -> None:
        """Wait for the download, and raise its error if it failed."""
        self.join()
        if isinstance(self._error, DataError):  # several threads may raise it
            raise DataError(self._error.message, self._error.hint) from self._error
        if self._error is not None:
            raise self._error

    def run(self) -> None:
        try:
            self._cache.fetch(self._file, self._patience)
        except Exception as error:
            self._error = error
        self._ended = time.monotonic()


class _Cache:
    """A folder whose files, including those being downloaded, have a bounded total size."""

    def __init__(self, root: Path, limit: Optional[int], silence: float) -> None:
        self.root = root
        self._limit = limit
        self._silence = silence

    def fetch(self, file: _File, patience: Patience) -> None:
        """Download a file unless another process has done so in the meantime.

        Raises:
            DataError: it cannot be fetched or stored, or is larger than the cache.
        """
        with self.storing(file):
            self.make_private(file)
            with self._alone(file):
                if file.complete():
                    return
                try:
                    with new_file(file.part) as part:
                        self._reserve(file, part)
                        fetched(file.url, part, patience, Expected(file.size, file.md5))
                        part.flush()
                        os.fsync(part.fileno())
                    os.replace(str(file.part), str(file.path))
                finally:
                    _remove(file.part)

    def make_private(self, file: _File) -> None:
        """Create the folders of a file, with access for this user only.

        Raises:
            OSError: they cannot be created, or belong to another user.
        """
        private_folder(self.root)
        private_folder(file.path.parent)

    @contextmanager
    def storing(self, file: _File) -> Iterator[None]:
        """Turn errors of the file system in the block into a `DataError`."""
        try:
            yield
        except OSError as error:
            raise DataError(f"cannot store {shown(file.url)!r} in '{self.root.parent}': "
                            f"{error.strerror or error}",
                            "free space, keep less with '--data-cache-size', or name another "
                            "folder with '--data-cache-dir'") from error

    @contextmanager
    def _alone(self, file: _File) -> Iterator[None]:
        from filelock import FileLock, Timeout

        lock = FileLock(str(_lock(file.path)))
        wait = _Wait(self._silence, f"another process is fetching {shown(file.url)!r} and gets "
                     "no further", f"end it; it holds '{lock.lock_file}'")
        while True:
            with suppress(Timeout):
                lock.acquire(timeout=1.0, poll_interval=_POLL)
                break
            wait.while_changing(_modified(file.part))
        try:
            yield
        finally:
            lock.release()

    def _reserve(self, file: _File, part: IO[bytes]) -> None:
        """Set the final size of a file before its download, so that other processes count it."""
        from filelock import FileLock

        wait = _Wait(self._silence, f"no room for {shown(file.url)!r} in '{self.root.parent}': "
                     "other downloads fill it and get no further", "raise '--data-cache-size'")
        while True:
            with FileLock(str(self.root / "cache.lock")):
                kept, loading = self._content(file.part)
                room = self._room(sum(size for _, size, _ in kept + loading))
                if file.size > room:
                    raise DataError(
                        f"{shown(file.url)!r} has {file.size} bytes, more than the cache in "
                        f"'{self.root.parent}' may hold, {room}",
                        f"give '--data-cache-size' of {file.size} or more, or name a larger disk "
                        "with '--data-cache-dir'")
                room -= file.size + sum(size for _, size, _ in loading)
                if room >= 0:
                    for _, size, path in sorted(kept, reverse=True):  # most recently used first
                        room -= size
                        if room < 0:
                            _remove(path)
                    part.truncate(file.size)
                    return
            wait.while_changing(tuple(sorted(changed for changed, _, _ in loading)))
            time.sleep(_POLL)

    def _content(self, own: Path) -> Tuple[List[_Entry], List[_Entry]]:
        """Return complete files and running downloads; remove files of killed processes."""
        from filelock import FileLock, Timeout

        kept, loading = [], []
        for path in self.root.glob("*/*-*"):
            try:
                status = path.lstat()
                if path.suffix == _part(path).suffix and path != own:
                    with FileLock(str(_lock(path.with_suffix(""))), timeout=0):
                        _remove(path)
                    continue
            except Timeout:
                loading.append((status.st_mtime_ns, status.st_size, path))
            except FileNotFoundError:
                continue  # its download has just ended
            else:
                if path.suffix != _lock(path).suffix and path != own:
                    kept.append((status.st_mtime_ns, status.st_size, path))
        return kept, loading

    def _room(self, used: int) -> int:
        if self._limit is not None:
            return self._limit
        return share_of_disk(self.root, used)


_Entry = Tuple[int, int, Path]


class _Wait:
    """Waits for other processes as long as they make progress."""

    def __init__(self, silence: float, what: str, hint: str) -> None:
        self._silence = silence
        self._what = what
        self._hint = hint
        self._seen: Any = None
        self._since = time.monotonic()

    def while_changing(self, seen: Any) -> None:
        """Raise a `DataError` when `seen` has not changed for too long."""
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        elif time.monotonic() - self._since > self._silence:
            raise DataError(self._what, self._hint)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _lock(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _modified(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _remove(path: Path) -> None:
    with suppress(OSError):  # it has its final name, or another process was faster
        path.unlink()
