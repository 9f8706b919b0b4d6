"""A finished run in a report, read from a folder or a file."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Set

from ipucnn.core import log_folder
from ipucnn.core.documents import LARGEST_JSON, parsed_json, read_mapping
from ipucnn.core.errors import DataError, IpucnnError
from ipucnn.core.files import kind_of, read_limited, require_file
from ipucnn.data.remote.mirror import local_path, on_disk
from ipucnn.data.remote.stores import is_store
from ipucnn.data.remote.transfer import shown as shown_url
from ipucnn.reports.metric_rows import MetricRows
from ipucnn.reports.prediction_rows import SUFFIXES, evidence_of_file
from ipucnn.reports.thumbnails import of_file, with_thumbnails

TRAINING, INFERENCE, VALIDATION = "training", "inference run", "validation"
BENCHMARK, NETWORKS = "data benchmark", "benchmark of networks"
PLAN, PREDICTIONS = "plan", "predictions"

FORMATS = {"ipucnn.train": TRAINING, "ipucnn.run": INFERENCE, "ipucnn.validate": VALIDATION,
           "ipucnn.data-bench": BENCHMARK, "ipucnn.bench": NETWORKS, "ipucnn.plan": PLAN}
"""The kinds of documents, by the name in their field `format`."""

VERSION = "1"
"""Of all these documents."""

_READ = (log_folder.TRAINING, log_folder.VALIDATION, log_folder.METRICS, log_folder.OPTIONS)
"""The files of a log folder that are read here."""

_MOST_ROWS = 10 ** 6
_WRITES = ("name the log folder of a training ('--log-dir', or else '--checkpoint-path'), a file "
           "of '--result' or '--predictions', or several of them")


@dataclass
class FinishedRun:
    """One run of a report.

    Attributes:
        name: distinguishes it from the others.
        kind: `TRAINING`, `INFERENCE` ...
        place: the path that was named.
        document: the result, plain types from a file.
        rows: the rows of metrics of a training.
        validation: the scores of the last validation of a training.
        evidence: the data of `ipucnn.reports.evidence`.
        notes: notes on missing data.
    """

    name: str
    kind: str
    place: str
    document: Dict[str, Any] = field(default_factory=dict)
    rows: List[Dict[str, Any]] = field(default_factory=list)
    validation: Dict[str, Any] = field(default_factory=dict)
    evidence: Dict[str, Any] = field(default_factory=dict)
    notes: List[str] = field(default_factory=list)

    def part(self, name: str) -> Dict[str, Any]:
        """Return a part of the document by name, or an empty mapping."""
        value = self.document.get(name)
        return value if isinstance(value, dict) else {}


def read_run(place: str) -> FinishedRun:
    """Return the run of a folder or a file.

    Args:
        place: the log folder of a training, or a file of `--result` or `--predictions`; a path,
            or a URL on a store.

    Raises:
        DataError: there is none, it cannot be read, or its content is not that of such a file.
    """
    place = local_path(place)
    with on_disk(place, _READ) as path:
        found = _read(path, place)
    if is_store(place):
        found.place = shown_url(place)
    return found


def _read(path: Path, place: str) -> FinishedRun:
    if path.is_dir():
        return _training(path)
    if not path.exists():
        raise DataError(f"there is no file or folder {place!r}", _WRITES)
    if path.suffix.lower() in SUFFIXES and (path.suffix.lower() != ".json" or _is_list(path)):
        return FinishedRun(path.name, PREDICTIONS, place, evidence=evidence_of_file(path))
    document = _document(path)
    name, _, version = str(document.get("format")).rpartition("/")
    kind = FORMATS.get(name)
    if kind is None:
        raise DataError(f"{place!r} is not a result of ipucnn that a report can show", _WRITES)
    found = FinishedRun(path.stem, kind, place, document)
    if version != VERSION:
        found.notes.append(f"the result has the format {name}/{version} of another version of "
                           "ipucnn; some of it may be missing here")
    found.evidence = found.part("evidence")
    if kind == VALIDATION and len(_epochs(document)) > 1:
        found.rows = [{"kind": "validation", **one} for one in document["validations"]]
    if kind == TRAINING and isinstance(document.get("log_dir"), str):
        try:
            with on_disk(document["log_dir"], _READ) as folder:
                found.rows = _rows(folder / log_folder.METRICS, found.notes)
                _add_validation(found, folder)
        except IpucnnError as error:  # it is on a store
            found.notes.append(f"{error.message}; the curves are left out")
    return found


def _epochs(document: Dict[str, Any]) -> Set[Any]:
    """Return the epochs that a validation has measured."""
    done = document.get("validations")
    return {str(one.get("epoch")) for one in done} if isinstance(done, list) and all(
        isinstance(one, dict) for one in done) else set()


def _training(folder: Path) -> FinishedRun:
    """Return the training of a log folder, or of the only one in a folder."""
    metrics, training = folder / log_folder.METRICS, folder / log_folder.TRAINING
    if not (metrics.exists() or training.exists()):
        inner = sorted(path for path in folder.iterdir() if any(
            (path / name).exists() for name in (log_folder.METRICS, log_folder.TRAINING)))
        if len(inner) == 1:
            return _training(inner[0])
        if inner:
            raise DataError(f"folder '{folder}' contains {len(inner)} trainings",
                            "name them one by one, for example " + str(inner[0]))
        raise DataError(f"folder '{folder}' contains no training: it has no {log_folder.METRICS}",
                        _WRITES)
    found = FinishedRun(folder.resolve().name, TRAINING, str(folder))
    if training.exists():
        found.document = _part(training, found.notes)
    else:
        found.notes.append(f"there is no {log_folder.TRAINING}: the environment, the model card "
                           "and the result are not known")
    if not found.part("options") and (folder / log_folder.OPTIONS).exists():
        found.document["options"] = read_mapping(folder / log_folder.OPTIONS)
    found.rows = _rows(metrics, found.notes)
    _add_validation(found, folder)
    return found


def _add_validation(found: FinishedRun, folder: Path) -> None:
    path = folder / log_folder.VALIDATION
    if not path.exists():
        return
    document = _part(path, found.notes)
    # a training that was killed has made no thumbnails
    found.evidence = with_thumbnails(document.pop("evidence", None) or {},
                                     lambda row: of_file(str(row["name"])))
    found.validation = document


def _document(path: Path) -> Dict[str, Any]:
    try:
        value = parsed_json(read_limited(path, LARGEST_JSON))
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}", "check the file"
                        ) from error
    except ValueError as error:
        raise DataError(f"'{path}' is not a JSON file: {error}", "check the file") from error
    if not isinstance(value, dict):
        raise DataError(f"'{path}' holds no result", _WRITES)
    return value


def _part(path: Path, notes: List[str]) -> Dict[str, Any]:
    """Return a document of a folder; empty, with a note, if it is damaged."""
    try:
        return _document(path)
    except DataError as error:
        notes.append(f"{error.message}; what it holds is left out")
        return {}


def _is_list(path: Path) -> bool:
    """Return whether a JSON file is a list, as predictions are."""
    if kind_of(path):
        return False
    try:
        with open(path, "rb") as file:
            return file.read(64).lstrip()[:1] == b"["
    except OSError:
        return False  # reported when it is read


def _rows(path: Path, notes: List[str]) -> List[Dict[str, Any]]:
    """Return the rows of metrics; those that cannot be read are counted in a note."""
    if not path.exists():
        return []
    rows = MetricRows(_MOST_ROWS)
    bad = 0
    try:
        for line in _lines(path):
            try:
                row = parsed_json(line)
            except ValueError:
                row = None
            if isinstance(row, dict):
                rows.add(row)
            else:
                bad += 1
    except OSError as error:
        raise DataError(f"cannot read '{path}': {error.strerror or error}", "check the file"
                        ) from error
    if bad:
        notes.append(f"{bad} rows of {path.name} cannot be read")
    return rows


def _lines(path: Path) -> Iterator[str]:
    require_file(path)
    with open(path, encoding="utf-8", errors="replace") as file:
        while True:
            line = file.readline(1 << 20)
            if not line:
                return
            if line.strip():
                yield line


def number(value: Any) -> Optional[float]:
    """Return a value of a document as a number, or None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value)


def named_apart(runs: List[FinishedRun]) -> List[FinishedRun]:
    """Give runs of one name the paths by which they were named, or numbers; return them."""
    repeated = _repeated(runs)
    for run in runs:
        if run.name in repeated:
            run.name = run.place if is_store(run.place) else os.path.normpath(run.place)
    repeated = _repeated(runs)
    for position, run in enumerate(runs, start=1):
        if run.name in repeated:
            run.name = f"{run.name} ({position})"
    return runs


def _repeated(runs: List[FinishedRun]) -> Set[str]:
    names = [run.name for run in runs]
    return {name for name in names if names.count(name) > 1}


def flattened(values: Mapping[str, Any], prefix: str = "") -> Dict[str, str]:
    """Return nested values as text by dotted name."""
    found: Dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found.update(flattened(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = shown(value)
    return found


def shown(value: Any) -> str:
    """Return a value of a document as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(item)}" for name, item in value.items())
    return str(value)
