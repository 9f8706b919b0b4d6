"""Filters and sorts runs by their key figures."""

from __future__ import annotations

import operator
import re
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.names import did_you_mean, key

_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge, "<=": operator.le, "!=": operator.ne, "=": operator.eq,
    ">": operator.gt, "<": operator.lt}

Row = Mapping[str, Any]


def filtered(rows: Sequence[Row], conditions: Sequence[str]) -> List[Row]:
    """Return the rows that meet all conditions (`model=resnet50`, `top1>=80`).

    Raises:
        UsageError: a condition is not valid, or names no key figure.
    """
    tests = [_condition(text) for text in conditions]
    return [row for row in rows if all(_holds(row, *test) for test in tests)]


def ordered(rows: Sequence[Row], by: str) -> List[Row]:
    """Return the rows sorted by a figure: numbers descending, texts ascending; `-` reverses it.

    Raises:
        UsageError: there is no such figure.
    """
    name = _figure(by.lstrip("-"))
    known = [row for row in rows if row.get(name) is not None]
    unknown = [row for row in rows if row.get(name) is None]
    numbers = all(isinstance(row[name], (int, float)) for row in known)
    known.sort(key=lambda row: row[name] if numbers else str(row[name]),
               reverse=numbers != by.startswith("-"))
    return [*known, *unknown]


def _condition(text: str) -> Tuple[str, Callable[[Any, Any], bool], str]:
    match = re.fullmatch(r"\s*([\w-]+)\s*(>=|<=|!=|=|>|<)\s*(.*?)\s*", text)
    if match is None:
        raise UsageError(f"{text!r} is not a condition",
                         "write a figure, a comparison and a value: 'model=resnet50' 'top1>=80'")
    name, comparison, value = match.groups()
    return _figure(name), _COMPARISONS[comparison], value


FIGURES = (
    "folder", "state", "model", "data", "epoch", "epochs", "update", "loss", "accuracy", "top1",
    "top5", "best_epoch", "last_top1", "images_per_second", "data_wait_share", "lr", "batch_size",
    "backend", "device", "begun", "seconds", "changed")
"""The names of the key figures: `FoundRun.as_dict`."""


def _figure(name: str) -> str:
    spelt: Dict[str, str] = {key(figure): figure for figure in FIGURES}
    if key(name) not in spelt:
        raise UsageError(f"runs have no figure {name!r}",
                         did_you_mean(name, FIGURES) or "figures: " + ", ".join(FIGURES))
    return spelt[key(name)]


def _holds(row: Row, name: str, compare: Callable[[Any, Any], bool], wanted: str) -> bool:
    value = row.get(name)
    if value is None:
        return False
    if isinstance(value, (int, float)):
        try:
            return compare(float(value), float(wanted))
        except ValueError:
            raise UsageError(f"{wanted!r} is not a number, but {name!r} is one",
                             f"write '{name}>=1'") from None
    if compare in (operator.eq, operator.ne):
        return compare(key(str(value)), key(wanted))
    return compare(str(value), wanted)
