"""Tables of the first predictions and the classes of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Optional, Sequence

from ipucnn.core.names import cells, printable, shortened
from ipucnn.terminal.layout import coloured, filled

if TYPE_CHECKING:
    from ipucnn.inference.run_result import RunResult

_GAP = "  "
_LEAST = 12  # columns for the name of a file beside others

CLASSES = 10
"""Maximum number of classes that are shown; the others are counted."""


_PIPED_WIDTH = 100
"""Columns for output to a file or a pipe."""


def answers(result: RunResult, width: Optional[int]) -> str:
    """Return the first predictions of a run and the classes it predicted.

    They fit into `width` columns of a terminal; None if there is no terminal, without colours. File
    names that are too long are shortened in the middle; control characters are escaped.
    """
    shown = len(result.answers)
    title = f"the first {shown} of {result.images:,} images\n" if result.images > shown else ""
    parts = [title + _first(result.answers, width or _PIPED_WIDTH, width is not None)]
    if result.images > 1:
        parts.append(_classes(result.classes, width or _PIPED_WIDTH))
    return "\n\n".join(parts)


def _first(rows: Sequence[Dict[str, Any]], width: int, colours: bool) -> str:
    widest = max(12, width // 5)
    others = [
        Column(["class", *(shortened(printable(str(row["name"])), widest) for row in rows)]),
        Column(["probability", *("" if row["probability"] is None else
                                 f"{100 * row['probability']:.1f} %" for row in rows)], True)]
    if any("correct" in row for row in rows):
        others.append(Column(["", *(_verdict(row, widest) for row in rows)], verdicts=colours))
    room = width - sum(len(_GAP) + column.width for column in others)
    if room < _LEAST:  # each image takes several lines
        return "\n".join(f"{shortened(printable(row['path']), width)}\n"
                         + filled(["  " + others[0].cells[number], *filter(None, (
                             column.cells[number] for column in others[1:]))], width, gap=_GAP)
                         for number, row in enumerate(rows, 1))
    return _table([Column(["file", *(shortened(printable(row["path"]), room) for row in rows)]),
                   *others])


def _verdict(row: Dict[str, Any], width: int) -> str:
    """Return whether a prediction is correct, with the label of an incorrect one."""
    if row.get("correct") is None:
        return ""
    if row["correct"]:
        return "right"
    label = shortened(printable(row["label_name"]), width)
    return f"wrong: {label}" if label else "wrong"  # an image may have none of several labels


def _classes(rows: Sequence[Dict[str, Any]], width: int) -> str:
    first, others = rows[:CLASSES], len(rows[CLASSES:])
    made = [Column(["predicted class", *(shortened(printable(row["name"]), max(15, width - 20))
                                         for row in first)]),
            Column(["images", *(f"{row['images']:,}" for row in first)], True)]
    if any("correct" in row for row in first):
        made.append(Column(["right", *(f"{row['correct']:,}" for row in first)], True))
    more = f"\nand {others} other {'class' if others == 1 else 'classes'}" if others else ""
    return _table(made) + more


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading and cells; numbers end flush, verdicts have a colour."""

    cells: Sequence[str]
    numbers: bool = False
    verdicts: bool = False

    @property
    def width(self) -> int:
        """The columns of a terminal that it occupies."""
        return max(map(cells, self.cells))

    def cell(self, row: int) -> str:
        """Return the cell of a row in the column's width."""
        text = self.cells[row]
        if self.numbers:
            return " " * (self.width - cells(text)) + text
        verdict = text.partition(":")[0] if self.verdicts else ""
        return coloured(verdict, text) + " " * (self.width - cells(text))


def _table(made: Sequence[Column]) -> str:
    return "\n".join(_GAP.join(column.cell(row) for column in made).rstrip()
                     for row in range(len(made[0].cells)))
