"""Writes predictions, one row per image: path, id, label, top classes, probabilities and split.

Rows are written to a partial file next to the final one, which is renamed when the run ends, also
after an interrupt or error: rows are kept, and no incomplete file has the final name.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Type

import numpy

from ipucnn.core.documents import json_text
from ipucnn.core.errors import DataError, UnavailableError, UsageError
from ipucnn.core.execution.accuracy import best_classes
from ipucnn.core.files import kind_of, require_replaceable
from ipucnn.core.staging import lock

Row = Dict[str, Any]


class PredictionWriter(ABC):
    """Writes rows to one file. Use it as a context manager."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path = path
        self.columns = list(columns)
        self._partial = path.with_name(f".{path.name}.partial")
        self._failed = False
        self._lock = -1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._claim()
            self._open()
        except OSError as error:
            self._release()
            raise self._failure(error) from error

    def write(self, rows: Iterable[Row],
              indices: Sequence[int] = ()) -> None:  # noqa: ARG002 - rows come in their order
        """Append rows.

        Args:
            rows: in the order of the file.
            indices: of their images in the dataset, for files that are merged later.

        Raises:
            DataError: they cannot be written (a full disk); earlier rows are kept.
        """
        try:
            self._write(list(rows))
        except OSError as error:
            self._failed = True
            raise self._failure(error) from error

    def close(self) -> None:
        """Finish the file and give it its final name, unless it cannot be read.

        Raises:
            DataError: it cannot be finished.
        """
        try:
            try:
                self._close()
            except OSError:
                self._failed = True
                raise
            finally:
                if self._partial.exists():
                    if self._failed and not self._readable():
                        self._partial.unlink()
                    else:
                        os.replace(str(self._partial), str(self.path))
        except OSError as error:
            raise self._failure(error) from error
        finally:
            self._release()

    def _claim(self) -> None:
        """Lock the partial file, which a killed run may have left, for this process."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)  # do not wait for a pipe
        self._lock = os.open(str(self._partial), flags, 0o666)
        if lock(self._lock) is False:
            self._release()
            raise UsageError(f"another run is writing predictions file {str(self.path)!r}",
                             "wait until it ends, or name another file")
        require_replaceable(self._partial)

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _readable(self) -> bool:
        """Return whether the partial file can be read, after a write that failed."""
        return True

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.close()
        except DataError:
            if error[0] is None:
                raise

    def _failure(self, error: OSError) -> DataError:
        return DataError(f"cannot write predictions to {str(self.path)!r}: "
                         f"{error.strerror or error}",
                         "free space or choose another place with '--predictions'")

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _write(self, rows: List[Row]) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...


class _Text(PredictionWriter):
    """Appends rows as text; a partially written row is truncated."""

    tail = ""

    def _open(self) -> None:
        # surrogateescape: a file name need not be valid text on Linux
        self._file = open(self._partial, "w", newline="",  # noqa: SIM115 - closed in _close
                          encoding="utf-8", errors="surrogateescape")
        self._begin()
        self._flush()

    def _write(self, rows: List[Row]) -> None:
        for row in rows:
            self._append(row)
        self._flush()

    def _flush(self) -> None:
        self._file.flush()
        self._whole = self._file.tell()

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # unwritten data still does not fit
            self._file.close()
        with open(self._partial, "r+b") as file:
            file.truncate(self._whole)
            file.seek(self._whole)
            file.write(self.tail.encode())

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _append(self, row: Row) -> None: ...


class _Csv(_Text):
    def _begin(self) -> None:
        self._csv = csv.DictWriter(self._file, self.columns)
        self._csv.writeheader()

    def _append(self, row: Row) -> None:
        self._csv.writerow(row)


class _Json(_Text):
    tail = "\n]\n"

    def _begin(self) -> None:
        self._separator = "\n"
        self._file.write("[")

    def _append(self, row: Row) -> None:
        self._file.write(self._separator + json_text(row))
        self._separator = ",\n"


class _Parquet(PredictionWriter):
    def _open(self) -> None:
        import pyarrow
        import pyarrow.parquet

        text, number = pyarrow.string(), pyarrow.float32()
        self._schema = pyarrow.schema([
            (column, pyarrow.int64() if column == "image_id"
             else pyarrow.int32() if column == "label" or column.startswith("class_")
             else number if column.startswith("probability_") else text)
            for column in self.columns])
        self._writer = pyarrow.parquet.ParquetWriter(str(self._partial), self._schema)

    def _write(self, rows: List[Row]) -> None:
        import pyarrow

        clean = [{**row, "path": row["path"].encode("utf-8", "replace").decode("utf-8")}
                 for row in rows]
        self._writer.write_table(pyarrow.Table.from_pylist(clean, schema=self._schema))

    def _close(self) -> None:
        self._writer.close()

    def _readable(self) -> bool:
        import pyarrow
        import pyarrow.parquet

        try:
            pyarrow.parquet.read_table(str(self._partial))
        except (pyarrow.ArrowException, OSError):
            return False
        return True


def stored_entries(file: Iterable[str]) -> Iterator[Any]:
    """Yield the entries of a file of JSON, one a line; an incomplete last line is left out."""
    for line in file:
        if line.endswith("\n"):
            yield json.loads(line)


_WRITERS: Dict[str, Type[PredictionWriter]] = {
    ".csv": _Csv, ".json": _Json, ".parquet": _Parquet}


def writer_class(path: str) -> Type[PredictionWriter]:
    """Return the writer for the suffix of `path`.

    Raises:
        UsageError: no format has this suffix, or `path` is a folder.
        UnavailableError: the format's library is missing.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _WRITERS:
        raise UsageError(f"predictions file {path!r} has no known format",
                         "its name must end in .csv, .json or .parquet")
    if kind_of(path):
        raise UsageError(f"predictions file {path!r} is {kind_of(path)}", "name a file")
    if suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise UnavailableError("writing Parquet needs pyarrow",
                                   "pip install 'ipucnn[parquet]'") from error
    return _WRITERS[suffix]


def columns(top_k: int, labelled: bool, with_ids: bool = False,
            with_split: bool = False, several: bool = False) -> List[str]:
    """Return the column names for `top_k` classes per image.

    Args:
        top_k: classes per image.
        labelled: there are columns `label`, a number, and `label_name`.
        with_ids: there is a column `image_id`.
        with_split: there is a column `split`.
        several: an image may have several labels: the column is `labels`, names with `|` between.
    """
    ranked = [f"{what}_{rank}" for rank in range(1, top_k + 1)
              for what in ("class", "name", "probability")]
    one, more = labelled and not several, labelled and several
    return ["path", *(["image_id"] if with_ids else []), *(["label"] if one else []),
            *(["labels"] if more else []), *ranked,
            *(["label_name"] if one else []), *(["split"] if with_split else [])]


def described(rows: Iterable[Row], label_names: Sequence[str], split: str) -> List[Row]:
    """Return rows with the columns `label_name` and `split`, which follow all others.

    Args:
        rows: those that `rows` returned; one without a label gets no name.
        label_names: class names of the dataset; empty when it has no labels.
        split: of the images; rows get no such column when it is empty.
    """
    result = []
    for row in rows:
        if "label" in row:
            known = row["label"] is not None and row["label"] < len(label_names)
            row = {**row, "label_name": label_names[row["label"]] if known else None}
        result.append({**row, "split": split} if split else row)
    return result


def rows(names: Sequence[str], labels: Optional[Sequence[Optional[int]]], probabilities: Any,
         class_names: Sequence[str], top_k: int,
         ids: Optional[Sequence[Optional[int]]] = None) -> List[Row]:
    """Return one row per image from `(n, classes)` probabilities, an array.

    Without `labels`, and without `ids`, the rows lack that column.
    """
    result: List[Row] = []
    best = best_classes(probabilities, top_k)
    for position, (name, values, classes) in enumerate(zip(
            names, numpy.take_along_axis(probabilities, best, 1).tolist(), best.tolist())):
        row: Row = {"path": name}
        if ids is not None:
            row["image_id"] = ids[position]
        if labels is not None:
            row["label"] = labels[position]
        for rank, (value, index) in enumerate(zip(values, classes), start=1):
            row[f"class_{rank}"] = index
            row[f"name_{rank}"] = class_names[index]
            row[f"probability_{rank}"] = round(value, 6)
        result.append(row)
    return result
