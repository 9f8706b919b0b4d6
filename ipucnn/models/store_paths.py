"""Paths of folders on stores: those of their copies, by URL."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Dict, Optional, Tuple

from ipucnn.core.errors import DataError
from ipucnn.core.files import cache_dir
from ipucnn.data.remote.mirror import local_path
from ipucnn.data.remote.stores import host_of, is_store
from ipucnn.data.remote.transfer import shown
from ipucnn.models.store_folder import WEIGHTS, StoreFolder

_folders: Dict[str, StoreFolder] = {}


def place_of(place: str, writes: bool = False) -> Path:
    """Return the path of a file or folder; for one on a store, the path of its copy.

    A file is downloaded when it is read (`present`).

    Args:
        place: a path, or the URL of a folder of checkpoints or a file of weights.
        writes: whether this process writes to the folder.

    Raises:
        IpucnnError: the URL is wrong, or the store does not respond.
    """
    if not is_store(place):
        return Path(local_path(place))
    url, name = divided(place)
    key = hashlib.sha256(shown(url).encode()).hexdigest()[:12]
    root = Path(os.path.abspath(str(
        cache_dir() / ("sent" if writes else "checkpoints") / f"{host_of(url)}-{key}")))
    folder = _folders.get(str(root))
    if folder is None or folder.closed or folder.store.url != url.rstrip("/"):
        try:
            folder = _folders[str(root)] = StoreFolder(url, root, writes)
        except OSError as error:
            raise _unstored(root, error) from error
    elif not writes:
        folder.refresh()
    return root / name if name else root


def divided(url: str) -> Tuple[str, str]:
    """Return the folder of a URL, and the file if it names one of weights."""
    folder, _, name = url.rstrip("/").rpartition("/")
    return (folder, name) if name.endswith(WEIGHTS) else (url.rstrip("/"), "")


def file_in(url: str, copy: Path) -> str:
    """Return the URL of the file of a copy: `url`, or one in that folder."""
    return url if divided(url)[1] else f"{url.rstrip('/')}/{copy.name}"


def on_store(folder: Path) -> Optional[StoreFolder]:
    """Return the folder on a store that a folder has the copies of; None for others."""
    found = _folders.get(os.path.abspath(str(folder)))
    return None if found is None or found.closed else found


def present(path: Path) -> None:
    """Download a file of a store unless there is a copy.

    Raises:
        DataError: it cannot be fetched.
    """
    folder = on_store(path.parent)
    if folder is not None:
        try:
            folder.copy(path.name)
        except OSError as error:
            raise _unstored(folder.root, error) from error


def shown_path(path: Path) -> str:
    """Return a path for messages and results: of a copy, the URL."""
    folder, own = on_store(path.parent), on_store(path)
    if own is not None:
        return own.store.shown()
    return str(path) if folder is None else folder.store.shown(path.name)


def _unstored(root: Path, error: OSError) -> DataError:
    return DataError(f"cannot keep copies in '{root}': {error.strerror or error}",
                     "free space, or set IPUCNN_CACHE to another folder")
