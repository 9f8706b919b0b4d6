"""Folders of checkpoints on a store, with copies in a local folder.

Not every store supports renaming, so a file with its final name may be incomplete. A record beside
the checkpoints lists the complete ones: a file is written and verified before the record is
replaced. The record is written alternately to two files, each with a digest of itself, so that one
of them is valid at any time. A folder without a record (copied files) can be read as well.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Set, Tuple

from ipucnn.core.bounded_folder import BoundedFolder, use
from ipucnn.core.documents import LARGEST_JSON, json_text, parsed_json
from ipucnn.core.errors import DataError, IpucnnError
from ipucnn.core.files import private_folder, read_limited
from ipucnn.core.log_folder import (
    CLASSES,
    METRICS,
    METRICS_TABLE,
    OPTIONS,
    STATUS,
    TRAINING,
    VALIDATION,
)
from ipucnn.core.staging import staged
from ipucnn.data.remote.stores import Store
from ipucnn.data.remote.transfer import Expected
from ipucnn.models.checkpoint_names import BEST, NAME

FORMAT = "ipucnn.checkpoints/1"
RECORDS = ("checkpoints.0.json", "checkpoints.1.json")
"""The two files to which the record is written alternately."""

SUPERSEDED = ".superseded"
"""Suffix of the names of checkpoints that a restored training sets aside."""

UNSENT = "unsent"
"""Subfolder of checkpoints that could not be written to the store."""

WEIGHTS = (".pt", ".pth", ".safetensors")
_BESIDE = (METRICS, METRICS_TABLE, OPTIONS)
"""Files of a training that go with its checkpoints, as they are when one is written."""

_BRIEF = 10.0  # seconds without progress after which the transfer of a watched file is cancelled
_WATCHED = (STATUS, METRICS, CLASSES, OPTIONS, TRAINING, VALIDATION)
"""Files that `ipucnn watch`, `runs` and `report` read."""

_LARGEST = 1 << 36
log = logging.getLogger("ipucnn.store_folder")
_Recorded = Dict[str, Tuple[int, str]]


class StoreFolder:
    """A folder of checkpoints on a store.

    Args:
        url: of the folder.
        root: the folder of copies.
        writes: whether this process writes there; others read the record again when it may have
            changed.

    Attributes:
        store: the folder on the store.
        root, writes: see above.
        closed: whether the copies are removed, and this is of no use any more.
        taken: returns why this process must not write there any more, or an empty text.
    """

    def __init__(self, url: str, root: Path, writes: bool) -> None:
        self.store = Store(url)
        self.root = root
        self.writes = writes
        self.closed = False
        self.taken: Callable[[], str] = str
        self._lock = threading.RLock()
        self._beside_lock = threading.Lock()  # so that a live status does not wait for a checkpoint
        self._sequence = 0
        self._recorded: Optional[_Recorded] = None
        self._pointed: Any = None
        self._good: Dict[str, Tuple[int, int]] = {}
        self._sent: Dict[str, Tuple[int, int]] = {}
        self._gone: Set[str] = set()
        self._lost = ""
        private_folder(root.parent)
        private_folder(root)
        if not writes:
            self.refresh()

    # -- reading -------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read the record, and the best validation that goes with it.

        Raises:
            DataError: the store does not respond.
        """
        with self._lock:
            found = [record for name in RECORDS for record in [self._read_record(name)] if record]
            newest = max(found, key=lambda record: int(record["sequence"]), default=None)
            self._sequence = int(newest["sequence"]) if newest else 0
            self._recorded = None if newest is None else {
                name: (size, sha256) for name, (size, sha256) in newest["files"].items()}
            best = newest["best"] if newest else self._loose_best()
            path = self.root / BEST
            if best:
                with staged(path) as partial:
                    partial.write_text(json_text(best, indent=2) + "\n")
            else:
                with suppress(FileNotFoundError):
                    path.unlink()

    def _read_record(self, name: str) -> Optional[Dict[str, Any]]:
        if self.store.stat(name) is None:
            return None
        try:
            record = parsed_json(self.store.read(name, LARGEST_JSON))
            content = {key: record[key] for key in ("format", "sequence", "files", "best")}
            named = all(os.path.basename(file) == file and type(size) is int and size >= 0
                        for file, (size, _) in content["files"].items())
        except (ValueError, KeyError, TypeError, AttributeError):
            return None  # it was being written when its process ended
        same = _digest(content) == record.get("sha256")
        return content if named and same and content["format"] == FORMAT else None

    def _loose_best(self) -> Any:
        if self.store.stat(BEST) is None:
            return None
        with suppress(ValueError):
            best = parsed_json(self.store.read(BEST, LARGEST_JSON))
            return best if isinstance(best, dict) else None
        return None

    def names(self) -> List[str]:
        """Return the sorted names of the checkpoints, with those not yet uploaded by this process.

        Raises:
            DataError: the store does not respond.
        """
        with self._lock:
            if not self.writes:
                self.refresh()
            names = set(self._recorded) if self._recorded is not None else {
                stored.name for stored in self.store.listing() if not stored.folder}
            if self.writes:
                names |= set(os.listdir(str(self.root)))
            return sorted(name for name in names - self._gone if NAME.fullmatch(name))

    def copy(self, name: str) -> None:
        """Download a file unless there is a valid copy.

        A file that does not exist on the store has no copy.

        Raises:
            DataError: the store does not respond, or the file is damaged.
            OSError: the copy cannot be written.
        """
        with self._lock:
            path = self.root / name
            if self._good.get(name) == _identity(path) is not None:
                return
            if not self.writes:
                use(path)
            wanted = (self._recorded or {}).get(name)
            if wanted is None and self.writes and path.exists():
                return  # written here, and not uploaded yet
            if wanted is not None:
                if not (path.exists() and _sha256(path) == wanted[1]):
                    self._download(name, Expected(size=wanted[0]))
                    if _sha256(path) != wanted[1]:
                        path.unlink()
                        raise DataError(f"{self.store.shown(name)!r} differs from what was "
                                        "written", "use another checkpoint")
            elif self._recorded is not None and NAME.fullmatch(name):
                with suppress(FileNotFoundError):
                    path.unlink()
                return
            else:
                self._loose_copy(name)
            self._good[name] = _identity(path) or (0, 0)

    def _loose_copy(self, name: str) -> None:
        path, note = self.root / name, self.root / f".{name}.version"
        stored = self.store.stat(name)
        if stored is None or stored.folder:
            with suppress(FileNotFoundError):
                path.unlink()
            return
        version = f"{stored.size} {stored.version}"
        with suppress(OSError):
            if stored.version and read_limited(note, 4096).decode() == version \
                    and path.stat().st_size == stored.size:
                return
        self._download(name, Expected(size=stored.size))
        note.write_text(version)

    def _download(self, name: str, expected: Expected) -> None:
        if not self.writes:
            copies = BoundedFolder(self.root.parent, tuple(f"*/*{end}" for end in WEIGHTS))
            copies.make_room(expected.size or 1)
        log.debug("fetching %s", self.store.shown(name))
        with staged(self.root / name) as partial, partial.open("wb") as file:
            self.store.download(name, file, expected)
        if not self.writes:
            use(self.root / name)

    def beside(self) -> None:
        """Fetch the files that go with the checkpoints of a training that continues."""
        with self._lock:
            for name in _BESIDE:
                if self.store.stat(name) is not None:
                    self._download(name, Expected(limit=_LARGEST))

    # -- writing -------------------------------------------------------------------------------

    def begin(self) -> None:
        """Read the record, and remove files of earlier processes from the folder of copies.

        Call it when no other process writes there.
        """
        with self._lock:
            self.refresh()
            for path in list(self.root.iterdir()):
                if not path.is_file() or path.name in (BEST, ".lock"):
                    continue
                if NAME.fullmatch(path.name) and path.name not in (self._recorded or {}):
                    (self.root / UNSENT).mkdir(exist_ok=True)
                    os.replace(str(path), str(self.root / UNSENT / path.name))
                elif path.name in (*_BESIDE, *_WATCHED):
                    path.unlink()

    def lose(self, reason: str) -> None:
        """Write nothing to the store any more: another process does; thread-safe."""
        self._lost = reason

    def _require_own(self) -> None:
        self._lost = self._lost or self.taken()
        if self._lost:
            raise IpucnnError(self._lost, f"checkpoints that are not there are in '{self.root}'")

    def send(self, name: str = "") -> None:
        """Write a checkpoint to the store, then the files beside it, then the record.

        Args:
            name: of the checkpoint in the folder of copies; empty to upload only the other files.

        Raises:
            DataError: it cannot be written; the record is unchanged.
            IpucnnError: another process writes there now.
        """
        with self._lock:
            self._require_own()
            recorded = dict(self._adopted())
            unsent = [other for other in os.listdir(str(self.root))
                      if NAME.fullmatch(other) and other not in recorded]
            for checkpoint in dict.fromkeys([*unsent, *([name] if name else [])]):
                self._send_checkpoint(checkpoint, recorded)
            for other in _BESIDE:
                self._send_beside(other)
            self._point({other: value for other, value in recorded.items()
                         if other not in self._gone})
            for other in list(self._gone):
                with suppress(DataError):  # no longer in the record
                    self.store.remove(other)
                self._gone.discard(other)
            self.send_watched()

    def _adopted(self) -> _Recorded:
        """Return the record; of a folder without one, that of the files in it."""
        if self._recorded is None:
            loose = [stored.name for stored in self.store.listing()
                     if NAME.fullmatch(stored.name) and not stored.folder]
            for name in loose:
                self.copy(name)
            self._recorded = {name: _measured(self.root / name) for name in loose}
        return self._recorded

    def _send_checkpoint(self, name: str, recorded: _Recorded) -> None:
        path = self.root / name
        measured = _measured(path)
        self._gone.discard(name)
        if recorded.get(name) == measured:
            return
        if recorded.pop(name, None):  # must not be read while it is replaced
            self._point(recorded)
        self.store.upload(path, name)
        recorded[name] = measured
        self._good[name] = _identity(path) or (0, 0)

    def _send_beside(self, name: str, store: Optional[Store] = None) -> None:
        path = self.root / name
        with self._beside_lock:
            now = _identity(path)
            if now is not None and self._sent.get(name) != now:
                # the content as it is now: rows may be added during the transfer
                (store or self.store).write(name, path.read_bytes())
                self._sent[name] = now

    def send_watched(self) -> None:
        """Upload the changed files that `watch` reads; thread-safe.

        This is attempted once: failures are ignored, and the next call uploads the current files.
        """
        patience = self.store.patience
        store = Store(self.store.url, replace(
            patience, attempts=1, timeout=min(_BRIEF, patience.timeout)))
        with suppress(DataError, OSError):
            for name in () if self._lost else _WATCHED:
                self._send_beside(name, store)

    def _point(self, recorded: _Recorded) -> None:
        """Replace the record if it has changed."""
        best = None
        with suppress(OSError, ValueError):
            best = parsed_json(read_limited(self.root / BEST, LARGEST_JSON))
        files = {name: list(value) for name, value in sorted(recorded.items())}
        content = {"format": FORMAT, "sequence": self._sequence + 1, "files": files, "best": best}
        if (files, best) == self._pointed:
            return
        text = json_text({**content, "sha256": _digest(content)}, indent=1)
        self.store.write(RECORDS[(self._sequence + 1) % 2], text.encode())
        self._sequence += 1
        self._recorded, self._pointed = dict(recorded), (files, best)
        if best:  # for users and other tools; ipucnn reads the record
            with suppress(DataError):
                self.store.write(BEST, (json_text(best, indent=2) + "\n").encode())

    def discard(self, name: str) -> None:
        """Remove a checkpoint with the next `send`."""
        with self._lock:
            with suppress(OSError):
                (self.root / name).unlink()
            if name in (self._recorded or {}):
                self._gone.add(name)

    def set_aside(self, name: str) -> None:
        """Rename a checkpoint so that it is no longer read as one.

        Raises:
            DataError: it cannot be written.
            OSError: it cannot be copied.
        """
        with self._lock:
            recorded = dict(self._adopted())
            self.copy(name)
            if recorded.pop(name, None):
                self._point(recorded)
            aside = free_name(name, lambda other: self.store.stat(other) is not None)
            self.store.upload(self.root / name, aside)
            self.store.remove(name)
            (self.root / name).unlink()

    def close(self) -> None:
        """Remove the copies of files that are on the store."""
        with self._lock:
            for name in (*(self._recorded or {}), *self._sent):
                unsent = self._recorded is not None and name in _BESIDE \
                    and self._sent.get(name) != _identity(self.root / name)
                if not unsent:
                    with suppress(OSError):
                        (self.root / name).unlink()
            self._good.clear()
            self.closed = True


def free_name(name: str, taken: Callable[[str], bool]) -> str:
    """Return the name, or path, under which to set a file aside: the first that is not taken."""
    names = (f"{name}{number}{SUPERSEDED}" for number in
             ("" if count == 1 else f".{count}" for count in itertools.count(1)))
    return next(free for free in names if not taken(free))


def _identity(path: Path) -> Optional[Tuple[int, int]]:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _sha256(path: Path) -> str:
    from ipucnn.data.remote.download import sha256

    return sha256(path)


def _measured(path: Path) -> Tuple[int, str]:
    return path.stat().st_size, _sha256(path)


def _digest(content: Dict[str, Any]) -> str:
    return hashlib.sha256(json_text(content).encode()).hexdigest()
