"""Fits text to the width of a terminal: wrapping, columns and colours."""

from __future__ import annotations

import os
import re
from typing import Any, List, Optional, Sequence

from ipucnn.core.names import cells, printable, printable_lines, shortened

_WORD = re.compile(r"(?:(?<!\w)'[^'\n]*'(?!\w)|\S)+")
"""A word, or several in single quotes: a command or a path stays on one line."""

_GAP = "  "
_NARROW = 24

_STYLES = {"ok": "32", "right": "32", "passed": "32", "warning": "33", "unavailable": "33",
           "disabled": "2", "wrong": "31", "failed": "31", "problem": "31", "conflict": "31",
           "incompatible": "31"}
"""ANSI attributes of words that state a result: green, yellow, dim and red."""


_MARK = "\ufdd0"
"""Represents the escape character of colours, so that text from outside cannot contain one. It is a
noncharacter, which Unicode reserves for internal use."""

_COLOUR = re.compile(_MARK + r"(\[[0-9]+m)")


def terminal_width(stream: Any) -> Optional[int]:
    """Return the columns of the terminal that a stream writes to, or None if it is not one."""
    try:
        if not stream.isatty():
            return None
        columns = os.environ.get("COLUMNS", "")
        if columns.isdecimal() and int(columns) > 0:
            return int(columns)
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):  # closed, or a stand-in without a file
        return None


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds: `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def wrapped(text: str, width: Optional[int], indent: str = "  ") -> str:
    """Return `text` broken between words into lines of at most `width` columns.

    A longer word, such as a path, is not broken. Lines of the text remain.

    Args:
        text: the text.
        width: None leaves it as it is.
        indent: of the lines that a break begins.
    """
    if width is None or all(cells(line) <= width for line in text.split("\n")):
        return text
    return "\n".join(line for whole in text.split("\n") for line in _lines(whole, width, indent))


def filled(items: Sequence[str], width: int, indent: str = "  ", gap: str = " ") -> str:
    """Return items on lines of at most `width` columns, broken between items.

    An item that is longer than a line is wrapped.

    Args:
        items: the items.
        width: of the lines.
        indent: of the lines but the first.
        gap: between items of a line.
    """
    lines: List[str] = []
    for item in items:
        if lines and cells(lines[-1] + gap + item) <= width:
            lines[-1] += gap + item
        else:
            lines.append(indent + item if lines else item)
    return "\n".join(wrapped(line, width, indent) for line in lines)


def _lines(text: str, width: int, indent: str) -> List[str]:
    begin = text[:len(text) - len(text.lstrip())]
    lines, line = [], ""
    for word in _words(text, width - len(indent)):
        if line.strip() and cells(line) + 1 + cells(word) > width:
            lines.append(line)
            line = begin + indent + word
        else:
            line = f"{line} {word}" if line else begin + word
    return [*lines, line]


def _words(text: str, width: int) -> List[str]:
    found: List[str] = []
    for word in _WORD.findall(text):
        # a quoted command that is longer than a line is broken, a path is not
        found += word.split() if cells(word) > width and "/" not in word else [word]
    return found


def columns(headings: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> str:
    """Return rows in columns that fit into `width`.

    A last column that is too long is wrapped; of another one, the cells are shortened in the
    middle. If the other columns do not fit, either, each row is broken between its cells. Control
    characters in cells are escaped.
    """
    shown = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(cells, column)) for column in zip(*shown)]
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    widest = max(range(len(widths)), key=lambda column: widths[column])
    if excess > 0 and widest < len(widths) - 1:
        widths[widest] = max(12, widths[widest] - excess)
        shown = [[shortened(cell, size) for cell, size in zip(row[:-1], widths)] + row[-1:]
                 for row in shown]
    start = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    below = width - start < min(_NARROW, widths[-1])  # no room for the last column beside the rest
    broken = start - len(_GAP) > width
    if below:
        start = len(_GAP)
    result: List[str] = []
    for row in shown:
        first = "".join(coloured(cell, cell) + " " * (size - cells(cell)) + _GAP
                        for cell, size in zip(row[:-1], widths))
        if broken:
            first = filled([cell for cell in row[:-1] if cell], width, gap=_GAP)
        text = wrapped(row[-1], width - start, "").split("\n")
        lead = first + ("" if below else coloured(row[-1], text.pop(0)))
        result += [lead.rstrip(), *(" " * start + line for line in text if line)]
    return "\n".join(result)


def coloured(word: str, text: str) -> str:
    """Return `text` in the colour of a word that states a result, unless colours are off.

    The colours are marks, which `coloured_lines` translates. Colours are off if the variable
    NO_COLOR is set, and on a terminal without colours.
    """
    style = _STYLES.get(word)
    if style is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"{_MARK}[{style}m{text}{_MARK}[0m"


def coloured_lines(text: str) -> str:
    """Return `text` with all escaped that would control a terminal but colours of `coloured`."""
    return "".join("\x1b" + part if number % 2 else printable_lines(part)
                   for number, part in enumerate(_COLOUR.split(text)))
