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
_LEAST_CURVE, _LEAST_CELL = 8, 12


def text_of(runs: Sequence[FinishedRun], width: int = 80) -> str:
    """Return runs as text of at most `width` columns, except for long names and paths."""
    lines: List[str] = []
    for run in runs:
        lines += _heading(f"{run.kind} {run.name}", width)
        lines += [line for note in run.notes for line in _wrapped(f"note: {note}", width)]
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


def _wrapped(text: str, width: int) -> List[str]:
    return textwrap.wrap(printable(text), width, subsequent_indent="  ", break_on_hyphens=False,
                         break_long_words=False)


def _pairs(rows: Sequence[Tuple[str, str]], width: int) -> List[str]:
    if not rows:
        return []
    column = max(len(name) for name, _ in rows)
    lines: List[str] = []
    for name, value in rows:
        first, *others = textwrap.wrap(printable(value), max(_LEAST_CELL, width - column - 2),
                                       break_on_hyphens=False, break_long_words=False) or [""]
        lines += [f"{name.ljust(column)}  {first}", *(" " * (column + 2) + line for line in others)]
    return lines


def _chart(chart: CurveChart, width: int) -> List[str]:
    title = f"{chart.title} ({chart.unit})" if chart.unit else chart.title
    lines = [title]
    names = [shortened(curve.name, 24) for curve in chart.curves]
    column = max(map(cells, names))
    summaries = [_summary(curve, chart.best) for curve in chart.curves]
    room = width - column - 4
    beside = room - max(map(len, summaries)) - 2 >= _LEAST_CURVE
    for curve, name, summary in zip(chart.curves, names, summaries):
        length = room - len(summary) - 2 if beside else room
        line = sparkline([value for _, value in curve.points], max(_LEAST_CURVE, length))
        lines.append(f"  {padded(name, column)}  {line}" + (f"  {summary}" if beside else ""))
        if not beside:
            lines.append(f"    {summary}")
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
        ends = f"{tick_label(slow[0])} to {tick_label(slow[-1])}"
        room = max(_LEAST_CURVE, min(60, width - 4 - len(ends)))
        lines += ["", *_wrapped(f"Latency of {len(slow)} device calls (ms): {marks}", width),
                  f"  {sparkline(_counts(slow, room), room)}  {ends}"]
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
    texts = [[printable(str(cell)) for cell in row] for row in [headings, *rows]]
    least = min(_LEAST_CELL, max(cells(row[-1]) for row in texts))
    for most in range(24, _LEAST_CELL - 2, -1):  # other cells make room for the last column
        shown = [[shortened(cell, most) for cell in row[:-1]] for row in texts]
        widths = [max(map(cells, column)) for column in zip(*shown)]
        room = width - 2 - sum(widths) - 2 * len(widths)
        if room >= least:
            break
    lines: List[str] = []
    for row, text in zip(shown, texts):
        line = "  " + "".join(padded(cell, size) + "  " for cell, size in zip(row, widths))
        if room >= least:
            lines.append(line + shortened(text[-1], room))
        else:
            lines.append(line)
            if text[-1]:
                lines.append("    " + shortened(text[-1], width - 4))
    return lines


def _differences(runs: Sequence[FinishedRun], width: int) -> List[str]:
    rows = [(name, values) for name, values, differs in compared(
        [run.part("options") for run in runs], [run.kind for run in runs]) if differs]
    if not rows:
        return ["The runs have the same options."]
    lines = _heading("options that differ", width)
    for name, values in rows:
        lines += _wrapped(f"{name}: " + " | ".join(shortened(printable(value or "(none)"), 40)
                                                    for value in values), width)
    return lines
