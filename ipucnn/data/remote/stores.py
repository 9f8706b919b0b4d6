"""Files on stores that fsspec reaches, such as `s3://`; the only module that imports fsspec."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Callable, Dict, List, Optional, Tuple, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from ipucnn.core.errors import DataError, UnavailableError, UsageError
from ipucnn.core.names import printable, without_secrets
from ipucnn.data.remote.attempts import Failed, Local, Pulse, within
from ipucnn.data.remote.stored_files import ANYTHING, BLOCK, Content, Stored, fresh, stored_file
from ipucnn.data.remote.transfer import Expected, Patience, shown, transfer

PATIENCE = Patience()

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "hf": "hf", "ssh": "ssh", "sftp": "ssh"}
"""The extra of ipucnn for the package of each scheme; other schemes need a package of fsspec."""

_OBJECTS = ("s3", "s3a", "gs", "gcs", "hf", "abfs", "abfss", "az", "adl", "oss", "oci")
"""Stores that write objects atomically and have no folders."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SLOWEST = 1 << 19  # bytes per second of an upload, which shows no progress within a part
_PART = 1 << 26
_LISTING = 10.0  # times the timeout, for a listing shows no progress either
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ValueError,
          TypeError, NotImplementedError, ImportError)
_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound",
                "DefaultCredentialsError", "PermissionDenied")
_CHECK = "check the address, the network and the credentials"
ResultT = TypeVar("ResultT")
log = logging.getLogger("ipucnn.stores")


def is_store(place: Any) -> bool:
    """Return whether a text is the URL of a store: neither a path, nor http, https or file."""
    found = _SCHEME.match(place) if isinstance(place, str) else None
    return found is not None and found[1].lower() not in ("http", "https", "file")


def fetched(url: str, file: IO[bytes], patience: Patience,
            expected: Expected = ANYTHING) -> None:
    """Write the content at a URL of any scheme into a file; see `transfer`."""
    if is_store(url):
        base, _, name = url.rpartition("/")
        Store(base, patience).download(name, file, expected)
    else:
        transfer(url, file, patience, expected)


def host_of(url: str) -> str:
    """Return the host of a URL, or scheme and bucket; empty when the URL names none.

    Raises:
        IpucnnError: the scheme is unknown, or its package is missing.
    """
    with suppress(ValueError):  # unbalanced brackets
        parts = urlsplit(url)
        if is_store(url):
            Store(url)
            return re.sub(r"[^\w.-]", "-", f"{parts.scheme}-{parts.netloc.rpartition('@')[2]}")
        return (parts.hostname or "") if parts.scheme in ("http", "https") else ""
    return ""


def below(base_url: str, name: str) -> str:
    """Return the URL of a file below a URL."""
    if is_store(base_url):
        return f"{base_url.rstrip('/')}/{name}"
    parts = urlsplit(base_url)
    return urlunsplit((parts.scheme, parts.netloc, f"{parts.path.rstrip('/')}/{quote(name)}",
                       parts.query, ""))


class Store:
    """A folder on a store. Any thread may use it; it can be pickled, and used after a fork.

    Every call is retried after temporary errors and after `Patience.timeout` seconds without
    progress.

    Args:
        url: of the folder.
        patience: timeout and retry policy; `PATIENCE` when None.

    Raises:
        UsageError: the scheme is unknown, or the URL is not one.
        UnavailableError: the package of the scheme is missing.
    """

    def __init__(self, url: str, patience: Optional[Patience] = None) -> None:
        self.url = url.rstrip("/")
        self.patience = patience or PATIENCE
        found = _SCHEME.match(url)
        self.scheme = found[1].lower() if found else ""
        self._opened: Optional[Tuple[int, Any, str]] = None
        self._check()

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def shown(self, name: str = "") -> str:
        """Return the URL of a file, without credentials."""
        return printable(shown(f"{self.url}/{name}" if name else self.url))

    @property
    def whole(self) -> bool:
        """Whether the store writes files atomically."""
        return self.scheme in _OBJECTS

    def _check(self) -> None:
        """Raise an error for a URL that cannot be that of a store, without a connection."""
        try:
            import fsspec
        except ImportError as error:
            raise UnavailableError(f"{self.shown()!r} needs fsspec", "pip install fsspec"
                                   ) from error
        if self.scheme not in (*fsspec.registry, *fsspec.available_protocols()):
            raise UsageError(f"scheme {self.scheme!r} of {self.shown()!r} is unknown",
                             "schemes: s3, gs, hf, ssh, memory and what else fsspec has; https for "
                             "datasets on a web server; or name a path")
        if self.whole and not urlsplit(self.url).netloc:
            raise UsageError(f"{self.url!r} names no bucket or repository",
                             f"write it as {self.scheme}://NAME/FOLDER")
        try:
            fsspec.get_filesystem_class(self.scheme)
        except ImportError as error:
            extra = EXTRAS.get(self.scheme)
            raise UnavailableError(f"{self.shown()!r} needs a package that is not installed"
                                   + ("" if extra else f": {_reason(error)}"),
                                   f"pip install 'ipucnn[{extra}]'" if extra else
                                   "install it, and see fsspec's documentation") from error

    def _located(self, name: str) -> Tuple[Any, str]:
        """Return the file system, which may have to be connected, and a path in it."""
        if self._opened is None or self._opened[0] != os.getpid():
            import fsspec.core

            self._opened = (os.getpid(), *fsspec.core.url_to_fs(self.url))
        root = self._opened[2].rstrip("/")
        return self._opened[1], f"{root}/{name}" if name else root

    # -- reading -------------------------------------------------------------------------------

    def stat(self, name: str) -> Optional[Stored]:
        """Return the file or folder of a name, or None.

        Raises:
            DataError: the store does not respond, or denies access.
        """
        try:
            return self._call("look up", name, lambda fs, path, _: stored_file(
                fresh(fs).info(path), name))
        except _Missing:
            return None

    def listing(self, name: str = "") -> List[Stored]:
        """Return the entries of a folder, sorted by name.

        Raises:
            DataError: the store does not respond, or denies access.
        """
        def listed(fs: Any, path: str, _: Pulse) -> List[Stored]:
            found = [(info["name"].rstrip("/"), info) for info in fresh(fs).ls(path, detail=True)]
            # an object with the folder's name, or the only one if it is a file, is not in it
            return [stored_file(info, full.rpartition("/")[2]) for full, info in found
                    if full.strip("/") != path.strip("/")]

        try:
            return sorted(self._call("list", name, listed, _LISTING * self.patience.timeout),
                          key=lambda stored: stored.name)
        except _Missing:
            return []

    def read(self, name: str, limit: int) -> bytes:
        """Return the content of a file of at most `limit` bytes.

        Raises:
            DataError: it cannot be read, or is larger.
        """
        content = io.BytesIO()
        self.download(name, content, Expected(limit=limit))
        return content.getvalue()

    def content(self, name: str, size: int) -> bytes:
        """Return the content of a small file whose size is known, by a single request.

        Raises:
            DataError: it cannot be fetched, or has another size.
        """
        def read(fs: Any, path: str, _: Pulse) -> bytes:
            found: bytes = fs.cat_file(path)
            if len(found) != size:
                raise Failed(f"{len(found)} of {size} bytes arrived")
            return found

        return self._call("fetch", name, read)

    def download(self, name: str, file: IO[bytes], expected: Expected = ANYTHING) -> Stored:
        """Write the content of a file into `file`, from its start.

        An attempt resumes where the last one ended, unless the file has changed.

        Args:
            name: of the file.
            file: open for writing, seekable.
            expected: known properties of the content.

        Returns:
            The metadata of the file from the store.

        Raises:
            DataError: it cannot be fetched or does not match `expected`.
            OSError: writing `file` failed.
        """
        return self._call("fetch", name, Content(file, expected).receive)

    # -- writing -------------------------------------------------------------------------------

    def upload(self, path: Path, name: str) -> None:
        """Write a file and verify it; if necessary, under a temporary name.

        Raises:
            DataError: it cannot be written, or the verification fails.
            OSError: the local file cannot be read.
        """
        digests = (hashlib.md5(), hashlib.sha256())
        size = 0
        with open(path, "rb") as file:
            for chunk in iter(lambda: file.read(BLOCK), b""):
                size += len(chunk)
                for digest in digests:
                    digest.update(chunk)
        md5, sha256 = (digest.hexdigest() for digest in digests)

        def put(fs: Any, target: str, pulse: Pulse) -> None:
            from fsspec.callbacks import Callback

            class Progress(Callback):  # type: ignore[misc]
                def call(self, *_: Any, **__: Any) -> None:
                    pulse.beat()

            part = target if self.whole else _beside(target)
            if not self.whole:
                fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            fs.put_file(str(path), part, callback=Progress())
            pulse.beat()
            self._verify(fs, part, (size, md5, sha256), pulse)
            if not self.whole:
                fs.mv(part, target)

        self._call("write", name, put, self.patience.timeout + min(size, _PART) / _SLOWEST)

    def write(self, name: str, content: bytes) -> None:
        """Write a small file, as `upload` does.

        Raises:
            DataError: it cannot be written, or no temporary file can.
        """
        import tempfile

        try:
            with tempfile.TemporaryDirectory(prefix="ipucnn-") as folder:
                path = Path(folder, "content")
                path.write_bytes(content)
                self.upload(path, name)
        except OSError as error:
            raise DataError(f"cannot write {self.shown(name)!r}: no temporary file can be written: "
                            f"{error.strerror or error}",
                            "free space, or set TMPDIR to another folder") from error

    def remove(self, name: str) -> None:
        """Remove a file; one that does not exist is none.

        Raises:
            DataError: the store does not respond, or denies access.
        """
        with suppress(_Missing):
            self._call("remove", name, lambda fs, path, _: fs.rm_file(path))

    def probe(self) -> None:
        """Write and remove a small file.

        Raises:
            DataError: the folder cannot be written.
        """
        name = f".writable.{os.getpid()}"
        self.write(name, b"x")
        self.remove(name)

    def _verify(self, fs: Any, path: str, wanted: Tuple[int, str, str], pulse: Pulse) -> None:
        """Raise `Failed` unless a file exists with the content that was written."""
        size, md5, sha256 = wanted
        info = fresh(fs).info(path)
        if info.get("size") != size:
            raise Failed(f"{info.get('size')} of {size} bytes arrived")
        if str(info.get("ETag", "")).strip('"') == md5:  # other kinds of tags are not comparable
            return
        digest = hashlib.sha256()
        for start in range(0, size, BLOCK):
            digest.update(fs.cat_file(path, start=start, end=min(start + BLOCK, size)))
            pulse.beat()
        if digest.hexdigest() != sha256:
            raise Failed("the stored file differs from what was written")

    # -- calls ---------------------------------------------------------------------------------

    def _call(self, action: str, name: str, call: Callable[[Any, str, Pulse], ResultT],
              timeout: float = 0.0) -> ResultT:
        """Execute a call with retries and return its result."""
        attempts = self.patience.attempts
        for attempt in range(1, attempts + 1):
            try:
                return within(timeout or self.patience.timeout, lambda pulse: call(
                    *self._located(name), pulse))
            except Local as error:
                raise error.cause from None
            except Exception as error:  # errors of the packages
                final = isinstance(error, _FINAL) or type(error).__name__ in _CREDENTIALS \
                    or (isinstance(error, Failed) and error.final)
                if isinstance(error, FileNotFoundError) and action != "write":
                    raise _Missing(f"there is no file {self.shown(name)!r}", _CHECK) from error
                if final or attempt == attempts:
                    counted = f" (attempt {attempt} of {attempts})" if attempt > 1 else ""
                    raise self._error(action, name, _reason(error) + counted) from error
                pause = self.patience.before(attempt + 1)
                log.warning("cannot %s '%s' yet: %s; trying again in %.1f s", action,
                            self.shown(name), _reason(error), pause)
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _error(self, action: str, name: str, reason: str) -> DataError:
        return DataError(f"cannot {action} {self.shown(name)!r}: {reason}", _CHECK)


class _Missing(DataError):
    """A file that does not exist."""


def _beside(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/.{name}.partial"


def _reason(error: BaseException) -> str:
    """Return the first line of an error, without credentials in URLs."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return printable(without_secrets(text)[:200])
