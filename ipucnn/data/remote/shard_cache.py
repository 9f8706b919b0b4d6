"""Files of a dataset on a server, kept in a bounded folder that processes share.

A copy gets its name when it is complete and its MD5 is right, so whatever has the name is good. One
process downloads a file and the others wait for it; the lock is the kernel's and goes with the
process that holds it. Files that were not used for longest leave first, and whoever has one open
reads on.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import shutil
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional, Tuple
from urllib.parse import quote, urlsplit, urlunsplit

from ipucnn.core.errors import DataError, UsageError
from ipucnn.data.remote.download import cache_dir as user_cache
from ipucnn.data.remote.transfer import Patience, shown, transfer

GREATEST_DEFAULT = 20 * 10**9
"""Bytes that are kept when nobody says how many, on a disk with ten times as much room."""

FOLDER = "streams"
"""Within the cache folder; nothing else there is looked at."""

PATIENCE = Patience()
_REMEMBERED = 60.0  # seconds that a file that could not be had is not asked for again
_POLL = 0.05
log = logging.getLogger("ipucnn.shard_cache")


class RemoteFiles:
    """The files below a URL.

    Any number of threads may use it. It can be pickled and survives a fork.

    Args:
        base_url: of their folder, http or https; a query goes with every file's URL.
        cache_dir: folder for copies; the user's cache when None.
        cache_bytes: how much is kept there, of all servers; when None 20 GB, or a tenth of what
            the disk has room for if that is less.
        patience: with the server; `PATIENCE` when None.

    Raises:
        UsageError: the URL is no address of http or https.
    """

    def __init__(self, base_url: str, cache_dir: Optional[str] = None,
                 cache_bytes: Optional[int] = None, patience: Optional[Patience] = None) -> None:
        host = _host(base_url)
        if not host:
            raise UsageError(f"{shown(base_url)!r} is no address of http or https",
                             "serve the files with a web server, or copy them to this machine")
        self.base_url = base_url
        self.patience = patience or PATIENCE
        root = Path(cache_dir).expanduser() if cache_dir else user_cache()
        self._cache = _Cache(root / FOLDER, cache_bytes, self.patience.longest_silence)
        place = shown(base_url).rstrip("/")
        self._folder = f"{host}-{hashlib.sha256(place.encode()).hexdigest()[:12]}"
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._fetches: Dict[Path, _Fetch] = {}

    def __getstate__(self) -> Dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"], state["_fetches"]  # threads stay where they are
        return state

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def url(self, name: str) -> str:
        """Return where a file is."""
        parts = urlsplit(self.base_url)
        return urlunsplit((parts.scheme, parts.netloc, f"{parts.path.rstrip('/')}/{quote(name)}",
                           parts.query, ""))

    def text(self, name: str) -> str:
        """Return the content of a small file, as the server has it now.

        Raises:
            DataError: it cannot be had, or is no text.
        """
        content = io.BytesIO()
        transfer(self.url(name), content, self.patience)
        try:
            return content.getvalue().decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{shown(self.url(name))!r} is not text: {error.reason}",
                            "check the address") from error

    def path(self, name: str, size: int, md5: str) -> str:
        """Return a complete copy of a file; it is downloaded when there is none.

        The copy may leave the cache before it is opened, when others need the room: who finds no
        file asks again.

        Args:
            name: of the file.
            size: in bytes.
            md5: of its content, in hexadecimal digits.

        Raises:
            DataError: it cannot be had or stored.
        """
        file = self._file(name, size, md5)
        if not file.used():
            self._fetch(file).wait()
        return str(file.path)

    def ahead(self, name: str, size: int, md5: str) -> None:
        """Download a file that `path` will be asked for, unless one is being downloaded ahead.

        It returns at once; whatever goes wrong, `path` will say.
        """
        file = self._file(name, size, md5)
        if not file.complete() and not any(
                fetch.ahead and fetch.is_alive() for fetch in list(self._fetches.values())):
            self._fetch(file, ahead=True)

    def _file(self, name: str, size: int, md5: str) -> _File:
        path = self._cache.root / self._folder / f"{md5[:12]}-{quote(name, safe='')}"
        return _File(self.url(name), path, size, md5)

    def _fetch(self, file: _File, ahead: bool = False) -> _Fetch:
        """Return the download of a file; it begins unless it is under way or has just failed."""
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
            return self.path.stat().st_size == self.size
        return False

    def used(self) -> bool:
        """Note that it is used, and return whether it is there."""
        with suppress(OSError):
            os.utime(str(self.path))
        return self.complete()


class _Fetch(threading.Thread):
    """A download in a thread that ends with the process, whatever the server does."""

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
        """Whether it has ended and need not be remembered."""
        return not self.is_alive() and (
            self._error is None or self.ahead or time.monotonic() - self._ended > _REMEMBERED)

    def wait(self) -> None:
        """Wait for its end, and raise what went wrong."""
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
    """A folder whose files, those being downloaded included, hold a bounded number of bytes."""

    def __init__(self, root: Path, limit: Optional[int], silence: float) -> None:
        self.root = root
        self._limit = limit
        self._silence = silence

    def fetch(self, file: _File, patience: Patience) -> None:
        """Download a file unless another process did so meanwhile.

        Raises:
            DataError: it cannot be had or stored, or is larger than the cache.
        """
        try:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            with self._alone(file):
                if file.complete():
                    return
                try:
                    with file.part.open("w+b") as part:
                        self._reserve(file, part)
                        transfer(file.url, part, patience, file.size, file.md5)
                        part.flush()
                        os.fsync(part.fileno())
                    os.replace(str(file.part), str(file.path))
                finally:
                    _remove(file.part)
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
        """Give a file that is to be downloaded its size, so that other processes see it."""
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
                    for _, size, path in sorted(kept, reverse=True):  # the last used first
                        room -= size
                        if room < 0:
                            _remove(path)
                    part.truncate(file.size)
                    return
            wait.while_changing(tuple(sorted(changed for changed, _, _ in loading)))
            time.sleep(_POLL)

    def _content(self, own: Path) -> Tuple[List[_Entry], List[_Entry]]:
        """Return the complete files and those being downloaded; what a dead process left goes."""
        from filelock import FileLock, Timeout

        kept, loading = [], []
        for path in self.root.glob("*/*-*"):
            try:
                status = path.stat()
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
        return min(GREATEST_DEFAULT, (shutil.disk_usage(str(self.root)).free + used) // 10)


_Entry = Tuple[int, int, Path]


class _Wait:
    """Waiting for others as long as they get on."""

    def __init__(self, silence: float, what: str, hint: str) -> None:
        self._silence = silence
        self._what = what
        self._hint = hint
        self._seen: Any = None
        self._since = time.monotonic()

    def while_changing(self, seen: Any) -> None:
        """Raise a `DataError` when `seen` has been the same for too long."""
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        elif time.monotonic() - self._since > self._silence:
            raise DataError(self._what, self._hint)


def _host(url: str) -> Optional[str]:
    """Return the host of a URL; None when it is not one of http or https."""
    with suppress(ValueError):  # brackets that are not in pairs
        parts = urlsplit(url)
        return parts.hostname if parts.scheme in ("http", "https") else None
    return None


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _lock(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _modified(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _remove(path: Path) -> None:
    with suppress(OSError):  # it has its final name, or another process was quicker
        path.unlink()
