"""The figures of a training on disk: `metrics.jsonl`, and the same as `metrics.csv`."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional

COLUMNS = ("kind", "epoch", "update", "loss", "accuracy", "learning_rate", "loss_scaling",
           "images_per_second", "data_wait_share", "weights", "top1", "top5", "images", "skipped")
"""Columns of the CSV file; a row leaves those empty that it does not have."""


class MetricsWriter:
    """Appends rows; each is on disk when `add` returns, unless the disk refuses it.

    What cannot be written is kept and tried again with the next row, so that a disk that is full
    for a while leaves no gap.

    Args:
        folder: where the two files are.
        rows: rows to keep of what is there, from the start; a resumed training writes the rest
            again.

    Attributes:
        rows: rows in all.
        failed: why the last write failed, or None.
    """

    def __init__(self, folder: Path, rows: int = 0) -> None:
        self._folder = folder
        self._pending: Dict[str, str] = {}
        self.failed: Optional[str] = None
        kept = _read(folder / "metrics.jsonl")[:rows]
        self.rows = len(kept)
        for name, text in (("metrics.jsonl", "".join(map(_line, kept))),
                           ("metrics.csv", _HEADER + _csv(kept))):
            partial = folder / f".{name}.tmp"
            partial.write_text(text, encoding="utf-8")
            os.replace(str(partial), str(folder / name))

    def add(self, row: Dict[str, Any]) -> None:
        """Append a row of plain values."""
        self.rows += 1
        self.failed = None
        for name, text in (("metrics.jsonl", _line(row)), ("metrics.csv", _csv([row]))):
            self._pending[name] = self._pending.get(name, "") + text
            try:
                self._append(name, self._pending[name].encode("utf-8"))
            except OSError as error:
                self.failed = f"cannot write metrics in '{self._folder}': {error.strerror or error}"
            else:
                del self._pending[name]

    def _append(self, name: str, content: bytes) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # unbuffered: a buffer would write the rest of a row that failed when the file is closed
        with open(self._folder / name, "ab", buffering=0) as file:
            end = file.tell()
            if not end and name == "metrics.csv":  # the folder was deleted meanwhile
                content = _HEADER.encode("utf-8") + content
            try:
                while content:
                    content = content[file.write(content):]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)  # no half row
                raise


def _line(row: Dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _csv(rows: List[Dict[str, Any]]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n").writerows(rows)
    return text.getvalue()


_HEADER = _csv([dict(zip(COLUMNS, COLUMNS))])


def _read(path: Path) -> List[Dict[str, Any]]:
    """Return the whole rows; what a killed process left half written is dropped."""
    rows = []
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
