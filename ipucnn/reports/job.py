"""The job behind `ipucnn report`: writes the page of one finished run, or of several compared."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Union

from ipucnn.core.errors import DataError, IpucnnError, UsageError
from ipucnn.core.files import kind_of, write_bytes
from ipucnn.core.log_folder import REPORT
from ipucnn.data.remote.mirror import local_path
from ipucnn.data.remote.stores import Store, is_store
from ipucnn.reports.finished_run import FORMATS, FinishedRun, named_apart, read_run

MOST_RUNS = 100
"""Maximum number of runs of a page."""

_MARK = b'<meta name="generator" content="ipucnn '
_FAULTS = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError,
           ZeroDivisionError)


def report(places: Sequence[str], out: Optional[str] = None) -> Path:
    """Write a report and return the path of the page.

    Args:
        places: log folders of trainings, and files of `--result` and `--predictions`.
        out: file to write; by default beside a single run, `report.html` here for several and for
            one on a store.

    Raises:
        UsageError: no run is named, or too many.
        DataError: one cannot be read, or the page cannot be written.
    """
    runs = read_runs(places)
    path = _place(places, out)
    write_page(runs, path)
    return path


def read_runs(places: Sequence[str]) -> List[FinishedRun]:
    """Return the runs of folders and files, with unique names.

    Raises:
        UsageError: none is named, or too many.
        DataError: one cannot be read.
    """
    if not places:
        raise UsageError("no run is named", "name the folder of a training or a file of '--result'")
    if len(places) > MOST_RUNS:
        raise UsageError(f"{len(places)} runs are too many for one page",
                         f"name at most {MOST_RUNS}")
    runs = []
    for place in places:
        try:
            with _expected(place):
                runs.append(read_run(place))
        except OSError as error:  # a folder without permission, a name that is too long
            raise DataError(f"cannot read {place!r}: {error.strerror or error}",
                            "check the name") from error
    return named_apart(runs)


def write_page(runs: Sequence[FinishedRun], path: Path) -> None:
    """Write the page of runs.

    Raises:
        DataError: it cannot be written, or the content of a run is not valid.
    """
    from ipucnn.reports.page import page_of

    with _expected(_places_of(runs)):
        text = page_of(runs)
    write_bytes(str(path), text.encode("utf-8"))


def text_report(places: Sequence[str], width: int) -> str:
    """Return runs as text for a terminal; see `text_of`.

    Args:
        places: see `report`.
        width: columns of the terminal.

    Raises:
        UsageError: no run is named, or too many.
        DataError: one cannot be read, or its content is not valid.
    """
    from ipucnn.reports.text_report import text_of

    runs = read_runs(places)
    with _expected(_places_of(runs)):
        return text_of(runs, width)


def of_document(document: Dict[str, Any], path: Union[str, os.PathLike[str]]) -> Path:
    """Write the page of a result that was computed in this process.

    Args:
        document: the content of its result file.
        path: of the page.

    Raises:
        DataError: it cannot be written.
    """
    kind = FORMATS[str(document["format"]).rpartition("/")[0]]
    run = FinishedRun(f"{document.get('model', kind)} on {document.get('dataset', 'images')}", kind,
                      "", document, evidence=document.get("evidence") or {})
    write_page([run], Path(path))
    return Path(path)


def of_training(log_dir: str) -> Optional[str]:
    """Write the report of a training into its log folder; return a note if this fails."""
    try:
        if is_store(log_dir):
            with tempfile.TemporaryDirectory(prefix="ipucnn-") as folder:
                path = report([log_dir], str(Path(folder, REPORT)))
                Store(log_dir).upload(path, REPORT)
        else:
            report([log_dir])
    except (IpucnnError, OSError) as error:  # no temporary folder, or a full disk
        return f"no report is written: {getattr(error, 'message', error)}"
    return None


def _place(places: Sequence[str], out: Optional[str]) -> Path:
    if out:
        if Path(out).suffix.lower() not in (".html", ".htm"):
            raise UsageError(f"report {out!r} has no known format", "its name must end in .html")
        return Path(out)
    first = Path(local_path(places[0]))
    if len(places) > 1 or is_store(places[0]):
        path = Path(REPORT)
    elif first.is_dir():
        path = first / REPORT
    else:
        path = first.with_suffix(".html")
    if path.exists() and not kind_of(path) and not _ours(path):
        raise UsageError(f"'{path}' exists and is not a report of ipucnn",
                         "choose another place with '--out FILE.html'")
    return path


def _ours(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return _MARK in file.read(1024)
    except OSError:
        return False


def _places_of(runs: Sequence[FinishedRun]) -> str:
    return ", ".join(run.place for run in runs)


@contextmanager
def _expected(place: str) -> Iterator[None]:
    """Report content of other types than ipucnn writes as an error in the files of a place."""
    try:
        yield
    except _FAULTS as error:
        raise DataError(f"'{place}' has unexpected content: {type(error).__name__}: {error}",
                        "was it written by 'ipucnn', and not changed since?") from error
