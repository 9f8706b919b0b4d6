"""Reads the log folders of running and finished trainings."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple, Union

from ipucnn.core.documents import parsed_json, read_mapping
from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.log_folder import CLASSES, METRICS, OPTIONS, RUNNING, STATUS
from ipucnn.data.remote.mirror import Mirror, local_path
from ipucnn.data.remote.stores import is_store
from ipucnn.reports.metric_rows import MetricRows

FILES = (METRICS, OPTIONS, CLASSES, STATUS)
"""Files of a log folder that are read here."""

LARGEST = 1 << 26
"""Largest file that is read at once, in bytes."""

_PART = 1 << 22
"""Bytes of a file of metrics that are read at a time."""

SILENT = 90.0
"""Seconds without a new status after which a training on another host is regarded as ended."""

SILENT_STORE = 600.0
"""The same for a training that is read from a store, which may be unavailable for minutes."""

DEPTH = 4
"""Levels of folders below the given one that are searched."""

_CLOCK = 60.0
"""Seconds by which the beginning of a process may be off: the clock may have been set meanwhile."""

ENDED = "ended without a result"
"""State of a training that was killed, or that lost its host."""


@dataclass
class Metrics:
    """The rows of a file of metrics, which can be updated when it grows.

    Attributes:
        path: the file.
        rows: the complete rows so far; if there are very many, some of the training are left out.
    """

    path: Path
    rows: MetricRows = field(default_factory=MetricRows)
    _place: int = 0

    def read_on(self) -> bool:
        """Read new rows, or all if the file has become shorter; return whether there were any."""
        begun = self._place
        with suppress(OSError):
            size = self.path.stat().st_size
            if size < self._place:  # a restored training has removed rows
                self.rows, self._place, begun = MetricRows(), 0, 0
            if size == self._place:
                return False
            with open(self.path, "rb") as file:
                file.seek(self._place)
                while self._add(file.read(_PART)):
                    file.seek(self._place)
        return self._place > begun

    def _add(self, content: bytes) -> bool:
        """Add the complete rows in a part of the file; return whether there were any."""
        whole = content[:content.rfind(b"\n") + 1]
        self._place += len(whole)
        for line in whole.splitlines():
            try:
                row = parsed_json(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                self.rows.add(row)
        return bool(whole)


@dataclass(frozen=True)
class FoundRun:
    """A training, read from its log folder.

    Attributes:
        folder: the folder.
        options: its options by name.
        status: the content of `status.json`.
        state: `running`, `completed`, `stopped`, `failed`, or that it ended without a result.
        last: the last row of a training.
        best: see `best_validation`.
        validation: the last validation.
        changed: when it was last written to, in seconds since the epoch.
        place: where the folder is, for messages.
    """

    folder: Path
    options: Mapping[str, Any]
    status: Mapping[str, Any]
    state: str
    last: Mapping[str, Any]
    best: Mapping[str, Any]
    validation: Mapping[str, Any]
    changed: float
    place: str = ""

    def as_dict(self) -> Dict[str, Any]:
        """Return its key figures, plain types for JSON."""
        begun, now = self.status.get("begun"), self.status.get("time")
        # without the logger `files`, the status is all that is known
        options = {**options_of(self.status), **self.options}
        last = self.last or self.status
        return {
            "folder": self.place or str(self.folder), "state": self.state,
            "model": options.get("model"), "data": options.get("data"),
            "epoch": last.get("epoch"), "epochs": options.get("epoch"),
            "update": last.get("update"), "loss": last.get("loss"),
            "accuracy": last.get("accuracy"), "top1": self.best.get("top1"),
            "top5": self.best.get("top5"), "best_epoch": self.best.get("epoch"),
            "last_top1": self.validation.get("top1"),
            "images_per_second": last.get("images_per_second"),
            "data_wait_share": last.get("data_wait_share"), "lr": self.options.get("lr"),
            "batch_size": self.options.get("batch_size"), "backend": self.status.get("backend"),
            "device": self.status.get("device"), "begun": begun,
            "seconds": now - begun if isinstance(now, (int, float)) and isinstance(
                begun, (int, float)) else None, "changed": self.changed}


def options_of(status: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the options that a status states."""
    return {"model": status.get("model"), "data": status.get("dataset"),
            "epoch": status.get("epochs")}


def changed(folder: Path) -> float:
    """Return when a run was last written to, in seconds since the epoch."""
    times = []
    for name in (METRICS, STATUS, OPTIONS):
        try:
            times.append((folder / name).stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)


def classes_in(folder: Path) -> List[Dict[str, Any]]:
    """Return the classes of the last validation in a log folder; empty if there are none."""
    found = read_mapping(folder / CLASSES, LARGEST).get("classes")
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def read(folder: Path, metrics: Optional[Metrics] = None, place: str = "",
         silent: Optional[float] = None) -> FoundRun:
    """Return the run in a log folder.

    Args:
        folder: the folder, or the copies of one on a store.
        metrics: its rows, if already read.
        place: the URL of a folder on a store.
        silent: seconds since it was last seen writing; by its clock if not given.
    """
    if metrics is None:
        metrics = Metrics(folder / METRICS)
        metrics.read_on()
    status = read_mapping(folder / STATUS, LARGEST)
    rows = metrics.rows
    validations = [row for row in rows if row.get("kind") == "validation"]
    trained = [row for row in rows if row.get("kind") == "train"]
    return FoundRun(
        folder, read_mapping(folder / OPTIONS, LARGEST), status,
        state_of(status, silent, SILENT_STORE if place else SILENT),
        trained[-1] if trained else {}, best_validation(rows),
        validations[-1] if validations else {}, changed(folder), place)


def listed(place: Union[str, os.PathLike[str]]) -> List[FoundRun]:
    """Return the trainings in a folder and below it.

    Args:
        place: a path, or the URL of a folder on a store.

    Raises:
        IpucnnError: there is no such folder, or the store does not respond.
    """
    name = local_path(place)
    if not is_store(name):
        return [read(folder) for folder in folders(Path(name))]
    mirror = Mirror(name, FILES, DEPTH)
    mirror.refresh()
    return [read(folder, place=mirror.shown(folder)) for folder in folders(mirror.folder)]


def state_of(status: Mapping[str, Any], silent: Optional[float] = None,
             limit: float = SILENT) -> str:
    """Return the state of a training; see `FoundRun`.

    Args:
        status: what it wrote last.
        silent: seconds since it was last seen writing; by its clock if not given.
        limit: seconds after which a training of another host counts as ended.
    """
    state = str(status.get("state", "unknown"))
    if state != RUNNING:
        return state
    if status.get("host") == socket.gethostname():
        return state if _alive(status.get("pid"), status.get("time")) else ENDED
    if silent is None:
        written = status.get("time")
        silent = time.time() - written if isinstance(written, (int, float)) else 0.0
    return state if silent < limit else ENDED


def _alive(process: Any, seen: Any) -> bool:
    """Return whether the process that wrote a status is running.

    Args:
        process: its number, which another process may have now.
        seen: when it wrote the status, in seconds since the epoch.
    """
    if not isinstance(process, int) or process <= 0:
        return False
    begun = _begin_of(process)
    if begun is not None and isinstance(seen, (int, float)) and begun > seen + _CLOCK:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # of another user, or no such number
        return True
    return True


def _begin_of(process: int) -> Optional[float]:
    """Return when a process began, in seconds since the epoch; None where it is not known."""
    try:
        # its name, in brackets, may contain anything
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2]
        ticks = int(fields.split()[19])  # since the machine was started; see proc(5)
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):  # another system than Linux
        return None
    return time.time() - age


def best_validation(rows: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the validation with the highest top-1 accuracy; empty without one.

    Only those with the classes of the last one count: a restored training may have added some,
    which makes the task harder. Rows of earlier versions do not contain their number.
    """
    found = [row for row in rows if row.get("kind") == "validation"]
    classes = found[-1].get("classes") if found else None
    return max((row for row in found if row.get("classes", classes) == classes), key=_top1,
               default={})


def _top1(row: Mapping[str, Any]) -> float:
    value = row.get("top1")
    return float(value) if isinstance(value, (int, float)) else -1.0


def folders(place: Path) -> List[Path]:
    """Return the log folders in a folder and below it.

    Raises:
        UsageError: there is no such folder.
        DataError: it cannot be read.
    """
    if not place.is_dir():
        raise UsageError(f"there is no folder '{place}'",
                         "name the folder of trainings; 'ipucnn train' makes 'logs'")
    found = []
    for folder, below, files in searched(place):
        if METRICS in files or STATUS in files:
            found.append(Path(folder))
        if len(Path(folder).relative_to(place).parts) >= DEPTH:
            below.clear()
    return found


def searched(place: Path) -> Iterator[Tuple[str, List[str], List[str]]]:
    """Yield a folder and those below it, as `os.walk` does, without hidden ones.

    A folder elsewhere that is linked there is one of them, but not the folders below it, which may
    be a large dataset. Folders below that cannot be read are left out.

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        os.listdir(str(place))
    except OSError as error:
        raise DataError(f"cannot list folder '{place}': {error.strerror}",
                        "grant permission there, or name another folder") from error
    root = os.path.join(os.path.realpath(str(place)), "")
    for folder, below, files in os.walk(str(place)):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield folder, below, files
        for link in filter(os.path.islink, (os.path.join(folder, name) for name in below)):
            if not os.path.join(os.path.realpath(link), "").startswith(root):
                with suppress(OSError):
                    yield link, [], os.listdir(link)
