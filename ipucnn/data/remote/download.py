"""Downloads files into a folder and verifies their hashes."""

from __future__ import annotations

import hashlib
import logging
import os
from functools import lru_cache
from pathlib import Path
from typing import Optional, Union
from urllib.parse import unquote, urlsplit

from ipucnn.core.errors import DataError
from ipucnn.core.files import CACHE_VARIABLE
from ipucnn.core.staging import staged
from ipucnn.data.remote.transfer import Expected, Patience, shown, transfer

TIMEOUT_SECONDS = 30.0
"""Seconds without data before a download fails; not the longest download."""

LIMIT = 1 << 36
"""Largest file in bytes that is downloaded: 64 GiB."""

_CHUNK = 1 << 20
log = logging.getLogger("ipucnn.download")


def fetch(url: str, folder: Union[str, Path], sha256_prefix: str = "",
          filename: Optional[str] = None, timeout: float = TIMEOUT_SECONDS) -> Path:
    """Return the file at `url`, downloaded into `folder` unless it is there already.

    The file appears under its name only when it is complete and its hash is right; an interrupted
    download leaves no other file behind.

    Args:
        url: http or https.
        folder: created when it does not exist.
        sha256_prefix: the first hexadecimal digits of the expected hash; empty checks nothing.
        filename: its name in the folder; the last part of the URL when not given.
        timeout: seconds without data before the download fails.

    Raises:
        DataError: the file cannot be fetched or stored, or is not the right one.
    """
    path = Path(folder) / (filename or file_name(url))
    if path.is_file():
        if _has_prefix(path, sha256_prefix):
            return path
        log.warning("'%s' has a wrong hash and is fetched again", path)
    log.info("fetching %s", shown(url))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged(path) as part:
            with part.open("wb") as file:
                transfer(url, file, Patience(timeout, attempts=1), Expected(limit=LIMIT))
            if not _has_prefix(part, sha256_prefix):
                found = sha256(part)[:max(8, len(sha256_prefix))]
                raise DataError(f"{shown(url)!r} has hash {found}, expected {sha256_prefix}",
                                "it was damaged or replaced in transit; try again or use a mirror")
    except OSError as error:
        raise DataError(f"cannot store {shown(url)!r} in '{path.parent}': "
                        f"{error.strerror or error}",
                        f"free space, allow writing there, or set {CACHE_VARIABLE} to another "
                        "folder") from error
    return path


def file_name(url: str) -> str:
    """Return the last part of a URL's path."""
    return unquote(urlsplit(url).path.rpartition("/")[2])


def sha256(path: Union[str, Path]) -> str:
    """Return the hash of a file's content in hexadecimal digits."""
    status = os.stat(path)
    return _sha256(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)  # a file is hashed when fetched and again when its use is reported
def _sha256(path: str, _size: int, _modified: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _has_prefix(path: Path, prefix: str) -> bool:
    return not prefix or sha256(path).startswith(prefix.lower())
