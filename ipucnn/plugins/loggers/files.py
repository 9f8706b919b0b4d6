"""Records a training in `metrics.jsonl`, `metrics.csv` (same rows) and `options.yaml`."""

from __future__ import annotations

import csv
import io
import os
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from ipucnn.core.documents import json_text, parsed_json
from ipucnn.core.errors import DataError
from ipucnn.core.files import kind_of, write_text
from ipucnn.core.log_folder import CLASSES, METRICS, METRICS_TABLE, OPTIONS
from ipucnn.core.loggers import Logger, RunInfo
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import LoggerSpec

COLUMNS = ("kind", "epoch", "update", "loss", "accuracy", "learning_rate", "loss_scaling",
           "images_per_second", "data_wait_share", "weights", "top1", "top5", "images", "skipped")
"""Columns of the CSV file; missing values are empty."""

PLACES = ("checkpoint_path", "log_dir", "result")
"""Options that name what a training writes; another one with these options must not replace it."""

SYNC = 10.0
"""Seconds between two synchronisations of the metrics with the disk."""

LARGEST = 1024
"""Maximum number of classes of a matrix that is written."""


class MetricsWriter:
    """Appends rows to the two files of metrics; each row is in them when `add` returns.

    They are synchronised with the disk at most every `SYNC` seconds and by `sync`, because this can
    take as long as a step; without it, rows are lost only by a power failure.

    A row that cannot be written is kept and retried with the next row, so that a temporarily full
    disk leaves no gap.

    Args:
        folder: where the two files are.
        rows: how many rows of existing files to keep, from the start; a restored training writes
            later ones again.
        precedes: returns whether to keep one of these rows; None keeps all.

    Attributes:
        rows: number of rows.
        failed: why the last write failed, or None.
    """

    def __init__(self, folder: Path, rows: int = 0,
                 precedes: Optional[Callable[[Dict[str, Any]], bool]] = None) -> None:
        self._folder = folder
        self._pending: Dict[str, str] = {}
        self.failed: Optional[str] = None
        self._synced = 0.0
        kept = [row for row in _read(folder / METRICS)[:rows] if precedes is None or precedes(row)]
        self.rows = len(kept)
        for name, text in ((METRICS, "".join(map(_line, kept))),
                           (METRICS_TABLE, _HEADER + _csv(kept))):
            write_text(str(folder / name), text)

    def add(self, row: Dict[str, Any]) -> None:
        """Append a row of plain values."""
        self.rows += 1
        for name, text in ((METRICS, _line(row)), (METRICS_TABLE, _csv([row]))):
            self._pending[name] = self._pending.get(name, "") + text
        self.flush()

    def flush(self) -> None:
        """Write the rows that are not written yet."""
        self.failed = None
        for name, text in list(self._pending.items()):
            try:
                self._append(name, text.encode("utf-8"))
            except OSError as error:
                self.failed = self._failure(error)
            else:
                del self._pending[name]
        if time.monotonic() - self._synced >= SYNC:
            self.sync()

    def sync(self) -> None:
        """Synchronise the rows written so far with the disk."""
        self._synced = time.monotonic()
        for name in (METRICS, METRICS_TABLE):
            try:
                with open(self._folder / name, "rb") as file:
                    os.fsync(file.fileno())
            except OSError as error:
                self.failed = self.failed or self._failure(error)

    def _failure(self, error: OSError) -> str:
        return f"cannot write metrics in '{self._folder}': {error.strerror or error}"

    def _append(self, name: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # unbuffered: a buffer would write the remainder of a failed row when the file is closed
        with open(self._folder / name, "ab", buffering=0) as file:
            end = file.tell()
            if not end and name == METRICS_TABLE:  # the folder was deleted meanwhile
                content = _HEADER.encode("utf-8") + content
            try:
                while content:
                    content = content[file.write(content):]
            except OSError:
                file.truncate(end)  # no partial row
                raise


class FilesLogger(Logger):
    """Writes the metrics and the options of a training to its log folder."""

    name = "files"

    def start(self, run: RunInfo) -> None:
        """Open the files of metrics and write the options; see `Logger.start`.

        Raises:
            DataError: they cannot be written.
        """
        import yaml

        self._folder = run.folder
        self._failing: Dict[str, Optional[str]] = {}
        self._metrics = MetricsWriter(run.folder, run.rows,
                                      run.precedes if run.restored else None)
        options = {name: value for name, value in run.options.items() if name not in PLACES}
        write_text(str(run.folder / OPTIONS), yaml.safe_dump(options, sort_keys=False))

    def row(self, row: Dict[str, Any]) -> Optional[str]:
        """Append a row to both files; see `Logger.row`."""
        self._metrics.add(row)
        failed = self._metrics.failed
        return self._once("row", failed and failed + "; it is tried again with the next row")

    def checkpoint(self, path: Path, epoch: int, update: int) -> None:  # noqa: ARG002
        """Synchronise the rows with the disk, because a training may resume here."""
        self._metrics.sync()

    def confusion(self, figures: Mapping[str, Any], confusion: Sequence[Sequence[int]],
                  names: Sequence[str]) -> Optional[str]:
        """Write the last confusion matrix and the accuracy of each class; see `Logger.confusion`.

        A matrix with many classes is omitted.
        """
        totals = [sum(row) for row in confusion]
        classes = [{"class": name, "images": total,
                    "top1": 100 * row[place] / total if total else None}
                   for place, (name, total, row) in enumerate(zip(names, totals, confusion))]
        failed = None
        try:
            write_text(str(self._folder / CLASSES), json_text({
                **figures, "classes": classes,
                **({"confusion": confusion} if len(confusion) <= LARGEST else {})}))
        except DataError as error:  # raising it would end the recording of rows
            failed = f"{error.message}; it is tried again with the next validation"
        return self._once("confusion", failed)

    def _once(self, what: str, failure: Optional[str]) -> Optional[str]:
        """Return a failure, unless the previous attempt failed for the same reason."""
        before = self._failing.get(what)
        self._failing[what] = failure
        return None if failure == before else failure

    def finish(self, status: str, result: Mapping[str, Any]) -> None:  # noqa: ARG002
        """Write the rows that could not be written before; see `Logger.finish`."""
        self._metrics.flush()
        self._metrics.sync()
        if self._metrics.failed:
            raise DataError(self._metrics.failed + "; its last rows are lost",
                            "free space or choose another place with '--log-dir'")


@hookimpl
def ipucnn_loggers() -> List[LoggerSpec]:
    """Return the record of the logger `files`."""
    return [LoggerSpec(name="files", summary="metrics.jsonl, metrics.csv and options.yaml",
                       target="ipucnn.plugins.loggers.files:FilesLogger")]


def _line(row: Dict[str, Any]) -> str:
    return json_text(row) + "\n"


def _csv(rows: List[Dict[str, Any]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n").writerows(rows)
    return text.getvalue()


_HEADER = _csv([dict(zip(COLUMNS, COLUMNS))])


def _read(path: Path) -> List[Dict[str, Any]]:
    """Return the complete rows, without one that a killed process wrote in part."""
    rows: List[Dict[str, Any]] = []
    if kind_of(path):  # reported when it is written
        return rows
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return rows
    for line in text.splitlines():
        try:
            row = parsed_json(line)
        except ValueError:
            break
        if not isinstance(row, dict):
            break
        rows.append(row)
    return rows
