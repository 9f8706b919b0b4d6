"""Writes the predictions of each process to a file and merges them in image order.

A part is stored next to the final file. Its first line names the columns; every other line is the
position of an image in the dataset and its row. An incomplete line is ignored.
"""

from __future__ import annotations

import glob
import heapq
import json
import os
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Iterable, Iterator, List, Sequence

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.staging import lock
from ipucnn.inference import predictions

_ROWS_AT_A_TIME = 64


class PartWriter(predictions.PredictionWriter):
    """Writes the rows of one process; see `PredictionWriter`.

    Args:
        path: the file into which all parts are merged.
        columns: of the rows.
        index: of the process.
    """

    def __init__(self, path: Path, columns: Sequence[str], index: int) -> None:
        self._part = _part(path, index)
        self._indices: Sequence[int] = ()
        super().__init__(path, columns)

    def write(self, rows: Iterable[predictions.Row], indices: Sequence[int] = ()) -> None:
        """Append rows; see `PredictionWriter.write`."""
        self._indices = indices
        super().write(rows)

    def close(self) -> None:
        """Finish the part."""
        with suppress(OSError):  # unwritten data still does not fit
            self._close()

    def _claim(self) -> None:
        """Do nothing: the parent has locked the file for all (`claimed`)."""

    def _open(self) -> None:
        self._file = open(self._part, "w", encoding="ascii")  # noqa: SIM115 - closed in _close
        self._append([self.columns])

    def _write(self, rows: List[predictions.Row]) -> None:
        self._append(zip(self._indices, rows))

    def _append(self, entries: Iterable[Any]) -> None:
        self._file.writelines(json.dumps(entry) + "\n" for entry in entries)
        self._file.flush()

    def _close(self) -> None:
        self._file.close()


@contextmanager
def claimed(target: Path) -> Iterator[None]:
    """Keep other runs away from the parts of a file; those of a killed run are removed.

    Raises:
        UsageError: another run is writing the file.
        DataError: the folder cannot be written.
    """
    path = target.with_name(f".{target.name}.parts")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(str(path), os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        raise DataError(f"cannot write predictions to {str(target)!r}: {error.strerror}",
                        "free space or choose another place with '--predictions'") from error
    try:
        if lock(descriptor) is False:
            raise UsageError(f"another run is writing predictions file {str(target)!r}",
                             "wait until it ends, or name another file")
        remove(target)
        try:
            yield
        finally:
            with suppress(OSError):  # while it is still locked
                path.unlink()
    finally:
        os.close(descriptor)


def remove(target: Path) -> None:
    """Remove the parts of a file, including those of a killed run."""
    for path in target.parent.glob(f".{glob.escape(target.name)}.part-*"):
        with suppress(OSError):
            path.unlink()


def merge(target: Path, count: int) -> None:
    """Merge the parts of `count` processes into one file, in image order, and remove them.

    Nothing is written when there are no parts.

    Raises:
        DataError: it cannot be written; the parts are kept.
    """
    with ExitStack() as stack:
        parts = [predictions.stored_entries(stack.enter_context(open(path, encoding="ascii")))
                 for path in (_part(target, index) for index in range(count)) if path.exists()]
        headers = [columns for columns in (next(part, None) for part in parts) if columns]
        if headers:
            entries = heapq.merge(*parts, key=lambda entry: entry[0])  # type: ignore[no-any-return]
            try:
                _write(target, headers[0], entries)
            except DataError as error:
                raise DataError(error.message, f"{error.hint}; rows that are missing are in "
                                f"'.{target.name}.part-*' beside it") from error
    remove(target)


def _write(target: Path, columns: Sequence[str], entries: Iterator[Any]) -> None:
    with predictions.writer_class(str(target))(target, columns) as writer:
        while True:
            rows = [row for _, row in islice(entries, _ROWS_AT_A_TIME)]
            if not rows:
                return
            writer.write(rows)


def _part(target: Path, index: int) -> Path:
    return target.with_name(f".{target.name}.part-{index}")
