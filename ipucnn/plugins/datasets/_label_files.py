"""Reads the classes of images from a CSV file: `--labels`."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from ipucnn.core.errors import DataError
from ipucnn.core.files import native_path, require_file
from ipucnn.core.names import composed, printable

FILE_COLUMNS = ("filename", "file", "filepath", "path", "imagename", "imagepath", "image",
                "imageid", "img", "id")
SINGLE_COLUMNS = ("label", "class", "classname", "category", "target")
SEVERAL_COLUMNS = ("labels", "classes", "categories", "tags")
SPLIT_COLUMNS = ("split", "set", "subset", "partition")
"""Names of columns without case, spaces, '_' and '-'; of several, the first one counts."""

_DELIMITERS = (",", ";", "\t")
_UTF16 = ("\udcff\udcfe", "\udcfe\udcff")  # its byte order marks, as they are decoded here
_UNDECODED = re.compile("[\ud800-\udfff]")
_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no", "")
_MISSING = ("nan", "n/a", "#n/a", "<na>", "#na")
_PERHAPS_MISSING = ("na", "null", "none", "-", "?")
"""Texts of other programs for a missing label, in any case; the latter may also be classes."""

_SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation",
           "validation": "validation", "test": "test", "testing": "test"}
_HINT = ("its first line names the columns: one of filename, file, path, image, image_id, id; and "
         "label, class, category, labels or tags, or one column of 0 and 1 per class; optionally "
         "split")


@dataclass(frozen=True)
class Labelled:
    """One line of a file of labels.

    Attributes:
        file: the name of the image in the file.
        classes: its classes, sorted; empty where none is given.
        split: `train`, `validation`, `test`, or empty.
        line: of the file, from 1.
    """

    file: str
    classes: Tuple[str, ...]
    split: str
    line: int


@dataclass(frozen=True)
class LabelFile:
    """The content of a file of labels.

    Attributes:
        path: of the file.
        rows: its lines.
        classes: class names in the order of labels: numbers by value, others by text; columns of
            0 and 1 in their order.
        several: an image may have several classes, or none.
        notes: notes on its interpretation, if it is not obvious.
    """

    path: str
    rows: List[Labelled]
    classes: Tuple[str, ...]
    several: bool
    notes: Tuple[str, ...] = ()


def read_labels(path: str) -> LabelFile:
    """Read a file of labels.

    Fields are separated by commas, semicolons or tabs. Several labels of an image are separated by
    `|`, or by `;` where that does not separate the fields; in a column with a plural name
    (`labels`, `tags`) also by commas or spaces. An empty field, `NaN` and `N/A` are no label.

    A single other column contains the labels, whatever its name, unless it contains only 0 and 1.

    Raises:
        DataError: it cannot be read, a column is missing, or a line is wrong; the message names
            the line, or the existing columns.
    """
    header, lines = _read(path)
    names = [_plain(name) for name in header]
    file, split = _column(names, FILE_COLUMNS), _column(names, SPLIT_COLUMNS)
    if file is None:
        raise _without(path, "the images", header)
    label = _column(names, (*SEVERAL_COLUMNS, *SINGLE_COLUMNS))
    others = [number for number in range(len(header)) if number not in (file, split, label)]
    notes: List[str] = []
    if label is None:
        label = _only_other(lines, others)
        if label is not None:
            others = []
            notes.append(f"labels of {path!r} are those in column {header[label]!r}, the only one "
                         "beside the images")
    if label is None:
        cells, order = _one_per_class(path, header, lines, others)
        incomplete = not all(cells)
    else:
        plural = names[label] in SEVERAL_COLUMNS
        cells, order = _in_one_column(path, header[label], [row[label] for _, row in lines],
                                      plural, notes)
        incomplete = plural and not all(cells)
        if others:
            notes.append(f"unused columns of {path!r}: "
                         + ", ".join(repr(header[number]) for number in others))
        unclear = [name for name in order if name.lower() in _PERHAPS_MISSING]
        if unclear:
            notes.append(f"{unclear[0]!r} in {path!r} is taken for a class: if it is a missing "
                         "label, leave its field empty")
    wrong = next((name for name in order if _UNDECODED.search(name)), None)
    if wrong is not None:
        raise DataError(f"labels {path!r} are not UTF-8 text: class {printable(wrong)!r} cannot be "
                        "read", "save them as UTF-8")
    rows = [Labelled(native_path(row[file]), classes,
                     "" if split is None else _split(path, row[split], line), line)
            for (line, row), classes in zip(lines, cells)]
    several = incomplete or any(len(classes) > 1 for classes in cells)
    return LabelFile(path, rows, order, several, tuple(notes))


def _without(path: str, missing: str, header: Sequence[str]) -> DataError:
    """Return the error for a file without a column that is needed."""
    return DataError(f"labels {path!r} have no column of {missing}; columns: "
                     + ", ".join(map(repr, header)), _HINT)


def _read(path: str) -> Tuple[List[str], List[Tuple[int, List[str]]]]:
    """Return the names of the columns, and the lines with their numbers."""
    try:
        # surrogateescape: a file name need not be valid text on Linux
        require_file(path)
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            first = file.readline()
            if first.startswith(_UTF16):
                raise DataError(f"labels {path!r} are UTF-16 text", "save them as UTF-8")
            delimiter = max(_DELIMITERS, key=first.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
        if any("\0" in cell for _, row in rows for cell in row):  # an error of csv before 3.11
            raise csv.Error("it contains NUL characters, like UTF-16 text and binary files")
    except OSError as error:
        raise DataError(f"cannot read labels {path!r}: {(error.strerror or str(error)).lower()}",
                        "name the file with '--labels'") from error
    except csv.Error as error:
        raise DataError(f"labels {path!r} are not a CSV file: {error}", _HINT) from error
    rows = [(line, row) for line, row in rows if any(row)]
    if not rows:
        raise DataError(f"labels {path!r} are empty", _HINT)
    (_, header), lines = rows[0], rows[1:]
    for line, row in lines:
        if len(row) != len(header):
            raise DataError(f"labels {path!r}, line {line}: {len(row)} fields, expected "
                            f"{len(header)} ({', '.join(header)})",
                            "put fields with separators in them into double quotes")
    if not lines:
        raise DataError(f"labels {path!r} name no images", _HINT)
    return header, lines


def _only_other(lines: Sequence[Tuple[int, List[str]]], others: Sequence[int]) -> Optional[int]:
    """Return the only other column if it contains other values than 0 and 1."""
    if len(others) != 1:
        return None
    return next((others[0] for _, row in lines
                 if row[others[0]].lower() not in (*_YES, *_NO, *_MISSING)), None)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name).lower()


def _column(names: Sequence[str], wanted: Sequence[str]) -> Optional[int]:
    return next((names.index(name) for name in wanted if name in names), None)


def _mark(cells: Sequence[str], plural: bool) -> str:
    """Return the separator of the labels of an image; empty if every image has one label."""
    marks = ("|", ";", ",", " ") if plural else ("|", ";")
    return next((mark for mark in marks if any(mark in cell for cell in cells)), "")


def _divided(cell: str, mark: str) -> Tuple[str, ...]:
    names = {name.strip() for name in (cell.split(mark) if mark else [cell])}
    return tuple(sorted(name for name in names if name and name.lower() not in _MISSING))


def _without_fractions(cells: List[Tuple[str, ...]]) -> List[Tuple[str, ...]]:
    """Return class numbers without `.0`, which pandas writes if a label is missing."""
    if not all(re.fullmatch(r"[0-9]+\.0", name) for classes in cells for name in classes):
        return cells
    return [tuple(name[:-2] for name in classes) for classes in cells]


def _in_one_column(path: str, column: str, texts: Sequence[str], plural: bool,
                   notes: List[str]) -> Tuple[List[Tuple[str, ...]], Tuple[str, ...]]:
    """Return the classes of every line from the texts of one column, and all classes in order.

    Raises:
        DataError: no line has a label.
    """
    mark = _mark(texts, plural)
    cells = _without_fractions([_divided(text, mark) for text in texts])
    order = _sorted({name for classes in cells for name in classes})
    if not order:
        raise DataError(f"labels {path!r} have no labels: every field of column {column!r} is "
                        "empty or NaN", _HINT)
    if mark:
        notes.append(f"labels in column {column!r} of {path!r} are separated by {mark!r}")
    return cells, order


def _one_per_class(path: str, header: Sequence[str], lines: Sequence[Tuple[int, List[str]]],
                   columns: Sequence[int]) -> Tuple[List[Tuple[str, ...]], Tuple[str, ...]]:
    """Return the classes of every line from columns of 0 and 1, and all classes in order.

    Raises:
        DataError: a field is neither, there is no such column, or two have one name.
    """
    if not columns:
        raise _without(path, "their labels", header)
    order = tuple(header[column] for column in columns)
    twice = next((name for name in order if order.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"labels {path!r} have several columns {twice!r}",
                        "each class has one column: rename or remove the others")
    found = []
    for line, row in lines:
        for column in columns:
            if row[column].lower() not in (*_YES, *_NO):
                raise DataError(
                    f"labels {path!r}, line {line}: {row[column]!r} in column {header[column]!r} "
                    "is neither 0 nor 1, and no column has the name of one of labels; columns: "
                    + ", ".join(map(repr, header)), _HINT)
        found.append(tuple(header[column] for column in columns if row[column].lower() in _YES))
    return found, order


def _split(path: str, value: str, line: int) -> str:
    found = _SPLITS.get(value.lower())
    if found is None:
        raise DataError(f"labels {path!r}, line {line}: {value!r} is not a split",
                        "splits are train, validation and test")
    return found


def _sorted(names: Iterable[str]) -> Tuple[str, ...]:
    """Return class names in the order of labels: numbers by their value."""
    names = list(names)
    if all(re.fullmatch(r"[0-9]{1,18}", name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


class Finder:
    """Finds the files that a file of labels names.

    A name may be a path below the folder, a path that ends in one (`photos/a.jpg` for `a.jpg`), or
    a file's name alone, each with or without the suffix, or in other case; an image with exactly
    this name comes first.

    Args:
        paths: the images.
        root: their folder.
    """

    def __init__(self, paths: Sequence[str], root: str) -> None:
        self._below, self._alone = _Names(), _Names()
        for path in paths:
            relative = os.path.relpath(path, root).replace(os.sep, "/")
            self._below.add(relative, path)
            self._alone.add(os.path.basename(relative), path)

    def __call__(self, name: str) -> Optional[str]:
        """Return the image of a name, or None.

        Raises:
            DataError: the name is ambiguous.
        """
        parts = name.replace("\\", "/").strip("/").split("/")
        for start in range(len(parts)):
            found = self._below.paths("/".join(parts[start:]))
            if found:
                return _only(name, found)
        return _only(name, self._alone.paths(name)) if len(parts) == 1 else None


class _Names:
    """Files by their names, without the suffix and in any case, however accents are written."""

    def __init__(self) -> None:
        self._exact: Dict[str, List[str]] = {}
        self._stems: Dict[str, List[str]] = {}
        self._lower: Dict[str, List[str]] = {}

    def add(self, name: str, path: str) -> None:
        name = composed(name)
        self._exact.setdefault(name, []).append(path)
        self._stems.setdefault(os.path.splitext(name)[0], []).append(path)
        self._lower.setdefault(name.lower(), []).append(path)

    def paths(self, name: str) -> List[str]:
        name = composed(name)
        return self._exact.get(name) or self._stems.get(name) or self._lower.get(name.lower(), [])


def _only(name: str, found: Sequence[str]) -> Optional[str]:
    if len(found) > 1:
        raise DataError(f"{name!r} may be {found[0]!r} or {found[1]!r}",
                        "name images in the file of labels by their path in the folder, with the "
                        "suffix")
    return found[0] if found else None
