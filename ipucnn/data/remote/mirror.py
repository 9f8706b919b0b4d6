"""Copies of a few files of a folder on a store, which are fetched again when they change."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Collection, Dict, Iterator
from urllib.parse import unquote, urlsplit

from ipucnn.core.errors import DataError
from ipucnn.core.staging import staged
from ipucnn.data.remote import stores
from ipucnn.data.remote.stored_files import Stored
from ipucnn.data.remote.stores import Store, is_store
from ipucnn.data.remote.transfer import Expected, shown

LARGEST = 1 << 30
"""Largest file that is fetched, in bytes."""

TIMEOUT = 15.0
"""Seconds without progress after which a request fails; the next refresh repeats it."""


def local_path(place: Any) -> str:
    """Return a place as it is, but a `file://` URL as the path, and `~` expanded."""
    text: str = os.fspath(place)
    if text.lower().startswith("file://"):
        return unquote(urlsplit(text).path) or "/"
    return text if is_store(text) else os.path.expanduser(text)


class Mirror:
    """Copies of the files of some names in a folder on a store, in a temporary folder.

    Args:
        url: of the folder.
        names: of the files.
        depth: levels of folders below that are searched.

    Attributes:
        folder: where the copies are, in the same subfolders.

    Raises:
        IpucnnError: the URL is wrong, or the package of its scheme is missing.
    """

    def __init__(self, url: str, names: Collection[str], depth: int = 0) -> None:
        patience = replace(stores.PATIENCE, attempts=1,
                           timeout=min(TIMEOUT, stores.PATIENCE.timeout))
        self._store = Store(url, patience)
        self._names, self._depth = frozenset(names), depth
        held = tempfile.mkdtemp(prefix="ipucnn-")
        weakref.finalize(self, shutil.rmtree, held, ignore_errors=True)
        # named as the folder on the store, for reports name trainings by it
        self.folder = Path(held, self._store.shown().rpartition("/")[2] or "run")
        self.folder.mkdir()
        self._versions: Dict[str, str] = {}

    def refresh(self) -> None:
        """Fetch the files that are new or have changed.

        Raises:
            DataError: the store does not answer; the copies so far remain.
        """
        self._refresh("", self._depth)

    def _refresh(self, place: str, depth: int) -> None:
        for stored in self._store.listing(place):
            name = f"{place}/{stored.name}" if place else stored.name
            if not stored.folder and stored.name in self._names:
                self._fetch(name, stored)
            elif stored.folder and depth and not stored.name.startswith("."):
                self._refresh(name, depth - 1)

    def _fetch(self, name: str, stored: Stored) -> None:
        version = f"{stored.size} {stored.version}"
        if (stored.version and self._versions.get(name) == version) or stored.size > LARGEST:
            return
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged(path) as partial, partial.open("wb") as file:
            self._store.download(name, file, Expected(limit=LARGEST))
        if stored.modified:
            os.utime(str(path), (stored.modified, stored.modified))
        self._versions[name] = version

    def of(self, folder: Path) -> Mirror:
        """Return a mirror of only one of the folders."""
        below = folder.relative_to(self.folder).as_posix()
        url = self._store.url
        return Mirror(url if below == "." else f"{url}/{below}", self._names)

    def shown(self, folder: Path) -> str:
        """Return the URL of the original of a folder, without credentials."""
        below = folder.relative_to(self.folder).as_posix()
        return self._store.shown("" if below == "." else below)


class Polling:
    """Refreshes a mirror again and again in a thread, so that a silent store blocks nobody.

    Args:
        mirror: what is refreshed.
        every: seconds between two refreshes.

    Attributes:
        failed: why the last refresh failed; empty after one that succeeded.
        since: when the store last answered, on the monotonic clock.
    """

    def __init__(self, mirror: Mirror, every: float) -> None:
        self.failed = ""
        self.since = time.monotonic()
        self._mirror, self._every = mirror, every
        self._over = threading.Event()
        threading.Thread(target=self._run, name="ipucnn-poll", daemon=True).start()

    def _run(self) -> None:
        while not self._over.wait(self._every):
            try:
                self._mirror.refresh()
            except (DataError, OSError) as error:
                self.failed = str(getattr(error, "message", error))
            else:
                self.failed, self.since = "", time.monotonic()

    def stop(self) -> None:
        """End the refreshes."""
        self._over.set()


@contextmanager
def on_disk(place: str, names: Collection[str] = ()) -> Iterator[Path]:
    """Yield a local path with the content of a place, which may be on a store.

    Args:
        place: a path, or the URL of a file or of a folder.
        names: the files that are wanted of a folder.

    Raises:
        IpucnnError: the URL is wrong, or the store does not answer.
    """
    place = local_path(place)
    if not is_store(place):
        yield Path(place)
        return
    folder, _, name = place.rstrip("/").rpartition("/")
    file = Store(folder).stat(name) if is_store(folder) and name else None
    if file is None or file.folder:
        mirror = Mirror(place, names)
        mirror.refresh()
        if not any(mirror.folder.iterdir()):
            raise DataError(f"there is no training or file at {shown(place)!r}",
                            "name the folder of '--checkpoint-path', or a file")
        yield mirror.folder
        return
    with tempfile.TemporaryDirectory(prefix="ipucnn-") as temporary:
        path = Path(temporary, name)
        with path.open("wb") as content:
            Store(folder).download(name, content, Expected(limit=LARGEST))
        yield path
