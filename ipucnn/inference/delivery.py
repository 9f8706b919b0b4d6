"""Predictions on a store: rows are written to a local file, which is uploaded at the end."""

from __future__ import annotations

import hashlib
import logging
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator

from ipucnn.core.errors import DataError
from ipucnn.core.files import cache_dir, private_folder, require_writable
from ipucnn.data.remote.stores import Store, is_store
from ipucnn.data.remote.transfer import shown

log = logging.getLogger("ipucnn.delivery")


def check_target(path: str) -> None:
    """Raise an error for a local file of rows that cannot be written; nothing is created.

    Raises:
        DataError, UsageError: see `require_writable`.
    """
    if not is_store(path):
        require_writable(path)


def target_of(path: str) -> Path:
    """Return the file for rows; for a file on a store, a file in the user's cache.

    Raises:
        DataError: its folder cannot be made.
    """
    if not is_store(path):
        return Path(path)
    folder = cache_dir() / "predictions" / hashlib.sha256(shown(path).encode()).hexdigest()[:12]
    try:
        private_folder(folder.parent)
        private_folder(folder)
    except OSError as error:
        raise DataError(f"cannot write in '{folder}': {error.strerror or error}",
                        "free space, or set IPUCNN_CACHE to another folder") from error
    return folder / path.rpartition("/")[2]


@contextmanager
def delivered(path: str) -> Iterator[Path]:
    """Yield the file for rows, and upload it to the store that `path` names.

    It is also uploaded after an interrupt or an error, with the rows so far. If the upload fails,
    the local file is kept.

    Raises:
        IpucnnError: the store cannot be written, which is also checked before the block.
    """
    target = target_of(path)
    if not is_store(path):
        yield target
        return
    folder, _, name = path.rpartition("/")
    store = Store(folder)
    store.probe()
    with suppress(FileNotFoundError):  # of a run with a failed upload
        target.unlink()
    try:
        yield target
    finally:
        failing = sys.exc_info()[0] is not None
        if target.exists():
            try:
                store.upload(target, name)
                target.unlink()
            except DataError as error:
                unsent = DataError(f"{error.message}; the rows are in '{target}'", error.hint)
                if not failing:
                    raise unsent from error
                log.error("%s", unsent.message)
