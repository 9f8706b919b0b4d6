"""Reads a file of predictions as the evidence of a report."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping

from ipucnn.core.documents import parsed_json
from ipucnn.core.errors import DataError, UnavailableError
from ipucnn.core.execution.accuracy import UNKNOWN
from ipucnn.core.files import read_limited, require_file
from ipucnn.core.names import class_key
from ipucnn.core.options.parts import MOST_CLASSES
from ipucnn.reports.evidence import Evidence
from ipucnn.reports.thumbnails import of_file, with_thumbnails

SUFFIXES = (".csv", ".json", ".parquet")
"""Suffixes of the files that `--predictions` writes."""

_MOST_BYTES = 1 << 30
_COLUMNS = ("path", "class_1", "name_1", "probability_1")


def evidence_of_file(path: Path) -> Dict[str, Any]:
    """Return the evidence of a file of predictions, with thumbnails of images that still exist.

    Raises:
        DataError: it cannot be read, or has no such columns.
        UnavailableError: reading Parquet needs a package that is not installed.
    """
    try:
        rows = iter(_READERS[path.suffix.lower()](path))
        first = next(rows, None)
        if first is None or not set(_COLUMNS) <= set(first):
            raise DataError(f"'{path}' is not a file of predictions: it has no rows with "
                            + ", ".join(_COLUMNS), "'ipucnn run --predictions FILE' writes one")
        found = _collected(first, rows)
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}",
                        "check the file") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise DataError(f"'{path}' is not a file of predictions: {error}",
                        "'ipucnn run --predictions FILE' writes one") from error
    folders = ("", os.path.dirname(path))
    return with_thumbnails(found, lambda row: of_file(row["name"], folders))


def _collected(first: Mapping[str, Any], rows: Iterator[Mapping[str, Any]]) -> Dict[str, Any]:
    columns: Dict[str, List[Any]] = {name: [] for name in (
        "answer", "second", "truth", "right", "probability", "second_probability")}
    paths: List[str] = []
    names: Dict[int, str] = {}
    numbers: Dict[Any, int] = {}
    for row in _from(first, rows):
        if row.get("class_1") in (None, ""):  # outputs that were not finite
            continue
        answer = numbers.get(row["class_1"])  # most rows name a class that an earlier one named
        if answer is None:
            answer = numbers[row["class_1"]] = _class(row["class_1"], row["name_1"], names)
        more = row.get("class_2") not in (None, "")
        columns["answer"].append(answer)
        columns["second"].append(_class(row["class_2"], row["name_2"], names) if more else answer)
        columns["probability"].append(float(row["probability_1"]))
        columns["second_probability"].append(float(row["probability_2"]) if more else 0.0)
        truth, right = UNKNOWN, UNKNOWN
        if row.get("label") not in (None, ""):
            truth = _class(row["label"], row.get("label_name"), names)
            right = int(truth == answer)
        elif row.get("labels") not in (None, ""):  # of several classes
            right = int(class_key(str(row["name_1"])) in map(
                class_key, str(row["labels"]).split("|")))
        columns["truth"].append(truth)
        columns["right"].append(right)
        paths.append(str(row["path"]))
    count = max(names, default=0) + 1
    evidence = Evidence([names.get(number, f"class {number}") for number in range(count)])
    evidence.add_arrays(index=range(len(paths)), **columns)
    return evidence.reduced(paths.__getitem__)


def _from(first: Mapping[str, Any],
          rows: Iterator[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    yield first
    yield from rows


def _class(value: Any, name: Any, names: Dict[int, str]) -> int:
    """Return the number of a class, and note its name."""
    number = int(value)
    if not 0 <= number < MOST_CLASSES:
        raise ValueError(f"{number} is no number of a class")
    if name not in (None, ""):
        names.setdefault(number, str(name))
    return number


def _csv(path: Path) -> Iterator[Mapping[str, Any]]:
    require_file(path)
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        yield from csv.DictReader(file)


def _json(path: Path) -> Iterator[Mapping[str, Any]]:
    rows = parsed_json(read_limited(path, _MOST_BYTES))
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("it is no list of rows")
    return iter(rows)


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UnavailableError("reading Parquet needs pyarrow",
                               "pip install 'ipucnn[parquet]'") from error
    require_file(path)
    try:
        for batch in parquet.ParquetFile(str(path)).iter_batches():
            yield from batch.to_pylist()
    except ArrowException as error:
        raise ValueError(str(error)) from error


_READERS = {".csv": _csv, ".json": _json, ".parquet": _parquet}
