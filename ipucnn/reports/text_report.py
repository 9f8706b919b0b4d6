"""Finished runs as text for a terminal, with sparklines."""

from __future__ import annotations

import sys
import textwrap
from typing import Any, List, Sequence, Tuple

from ipucnn.core.names import cells, padded, printable, shortened
from ipucnn.reports.charts import tick_label
from ipucnn.reports.classes_shown import calibration_error, class_rows, mistaken_pairs
from ipucnn.reports.curves import Curve, CurveChart, charts_of
from ipucnn.reports.finished_run import FinishedRun
from ipucnn.reports.key_figures import (
    facts,
    key_figures,
    latencies,
    percentiles,
    validation_rows,
)
from ipucnn.reports.page import compared

BLOCKS, ASCII = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588", "_.-=+*#@"

_MOST_CLASSES = 10


def text_of(runs: Sequence[FinishedRun], width: int = 80) -> str:
    """Return runs as text of at most `width` columns, except for long names and paths."""
    lines: List[str] = []
    for run in runs:
        lines += _heading(f"{run.kind} {run.name}", width)
        lines += [f"note: {note}" for note in run.notes]
        lines += _pairs([*key_figures(run), *facts(run)], width)
        if len(runs) == 1:
            lines += _details(run, width)
        lines.append("")
    curves = charts_of(runs)
    if curves:
        lines += _heading("curves", width)
        for chart in curves:
            lines += _chart(chart, width)
        lines.append("")
    if len(runs) > 1:
        lines += _differences(runs, width)
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def sparkline(values: Sequence[float], length: int, marks: str = "") -> str:
    """Return values as one line of bars, at most `length` of them.

    Args:
        values: not empty; of more than `length`, the means of equal parts are drawn.
        length: in characters.
        marks: from low to high; block characters, or ASCII where the output lacks them.
    """
    marks = marks or _marks()
    if len(values) > length:
        values = [sum(part) / len(part) for place in range(length)
                  for part in [values[place * len(values) // length:
                                      (place + 1) * len(values) // length]]]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(marks[min(len(marks) - 1, int((value - low) / span * len(marks)))]
                   for value in values)


def _marks() -> str:
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    try:
        BLOCKS.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def _heading(title: str, width: int) -> List[str]:
    shown = printable(title)
    return [shown, "-" * min(width, cells(shown))]


def _pairs(rows: Sequence[Tuple[str, str]], width: int) -> List[str]:
    if not rows:
        return []
    column = max(len(name) for name, _ in rows)
    lines: List[str] = []
    for name, value in rows:
        first, *others = textwrap.wrap(printable(value), max(20, width - column - 2),
                                       break_on_hyphens=False, break_long_words=False) or [""]
        lines += [f"{name.ljust(column)}  {first}", *(" " * (column + 2) + line for line in others)]
    return lines


def _chart(chart: CurveChart, width: int) -> List[str]:
    title = f"{chart.title} ({chart.unit})" if chart.unit else chart.title
    lines = [title]
    names = [shortened(curve.name, 24) for curve in chart.curves]
    column = max(map(cells, names))
    for curve, name in zip(chart.curves, names):
        summary = _summary(curve, chart.best)
        room = width - column - len(summary) - 6
        line = sparkline([value for _, value in curve.points], max(8, room))
        lines.append(f"  {padded(name, column)}  {line}  {summary}")
    return lines


def _summary(curve: Curve, best: str) -> str:
    values = [value for _, value in curve.points]
    text = tick_label(values[-1]) if values[0] == values[-1] else \
        f"{tick_label(values[0])} to {tick_label(values[-1])}"
    if best:
        epoch, value = (min if best == "min" else max)(curve.points, key=lambda point: point[1])
        text += f", best {tick_label(value)} at {tick_label(epoch)}"
    return text


def _details(run: FinishedRun, width: int) -> List[str]:
    lines: List[str] = []
    evidence = run.evidence
    slow = latencies(run)
    if slow:
        marks = ", ".join(f"{name} {tick_label(value)}" for name, value in percentiles(run))
        lines += ["", f"Latency of {len(slow)} device calls (ms): {marks}",
                  "  " + sparkline(_counts(slow, min(60, width - 4)), width - 4)
                  + f"  {tick_label(slow[0])} to {tick_label(slow[-1])}"]
    validations = validation_rows(run)
    if len(validations) > 1:
        lines += ["", "Checkpoints", *_table(
            list(validations[0]), [list(row.values()) for row in validations], width)]
    if not evidence.get("classes"):
        return lines
    error = calibration_error(evidence["calibration"])
    if error is not None:
        lines += ["", f"Calibration error: {100 * error:.1f} %"]
    rows = [row for row in class_rows(evidence) if row.images]
    rows.sort(key=lambda row: row.recall or 0.0)
    if rows:
        lines += ["", "Classes" if len(rows) <= _MOST_CLASSES else
                  f"The {_MOST_CLASSES} worst of {len(rows)} classes"]
        lines += _table(("class", "images", "recall %", "mistaken for"), [
            (row.name, str(row.images), f"{row.recall:.1f}", row.mistaken)
            for row in rows[:_MOST_CLASSES]], width)
    pairs = mistaken_pairs(evidence)[:5]
    if pairs:
        lines += ["", "Most frequent mistakes", *_table(("label", "predicted", "images"), [
            (label, answer, str(images)) for label, answer, images in pairs], width)]
    wrong = evidence.get("shown", {}).get("wrong", [])[:5]
    if wrong:
        lines += ["", "Wrong, with the highest probability", *_table(
            ("predicted", "probability", "label", "file"),
            [(row["answer"], f"{100 * row['probability']:.1f} %", row["label"] or "", row["name"])
             for row in wrong], width)]
    return lines


def _counts(values: Sequence[float], most: int) -> List[float]:
    count = max(5, min(most, round(2 * len(values) ** 0.5)))
    width = (values[-1] - values[0]) / count or 1.0
    counts = [0.0] * count
    for value in values:
        counts[min(count - 1, int((value - values[0]) / width))] += 1
    return counts


def _table(headings: Sequence[str], rows: Sequence[Sequence[Any]], width: int) -> List[str]:
    shown = [[shortened(printable(str(cell)), 24 if place < len(row) - 1 else width)
              for place, cell in enumerate(row)] for row in [headings, *rows]]
    widths = [max(map(cells, column)) for column in zip(*shown)]
    room = max(12, width - 2 - sum(widths[:-1]) - 2 * (len(widths) - 1))
    return ["  " + "  ".join([padded(cell, size) for cell, size in zip(row[:-1], widths)]
                             + [shortened(row[-1], room)]) for row in shown]


def _differences(runs: Sequence[FinishedRun], width: int) -> List[str]:
    rows = [(name, values) for name, values, differs in compared(
        [run.part("options") for run in runs], [run.kind for run in runs]) if differs]
    if not rows:
        return ["The runs have the same options."]
    lines = _heading("options that differ", width)
    for name, values in rows:
        lines.append(f"{name}: " + " | ".join(shortened(printable(value or "(none)"), 40)
                                              for value in values))
    return lines
