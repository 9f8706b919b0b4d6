"""Draws a training on a terminal: curves, figures and the worst classes."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from ipucnn.core.log_folder import RUNNING
from ipucnn.core.names import cells, printable, shortened
from ipucnn.reports.metric_rows import LARGEST
from ipucnn.runs.found import best_validation
from ipucnn.terminal.layout import clock

POINTS = 400
"""Maximum number of points of a curve; means of more points are drawn."""

WORST = 6
"""Maximum number of listed classes."""


@dataclass
class View:
    """The contents of a dashboard.

    Attributes:
        title: the run.
        state: see `FoundRun.state`.
        status: the content of `status.json`, or the like.
        rows: rows of metrics.
        classes: classes of the last validation, with `class`, `images` and `top1`.
        notes: lines for the user; the last ones are shown.
    """

    title: str
    state: str = RUNNING
    status: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    classes: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()


def drawn(view: View, width: int, height: int) -> str:
    """Return a view as text without colours, of at most the given columns and lines."""
    title, state = printable(view.title), printable(view.state)
    room = width - cells(state) - 3
    lines = [shortened(f"{shortened(title, max(0, room))}   {state}", width, 1),
             *_figures(view, width)]
    classes = _classes(view)
    below = classes + [printable(note) for note in view.notes[-2:]]
    space = height - len(lines) - min(len(below), max(0, height // 4))
    if space >= 6 and width >= 40:
        lines += _curves(view, width, space)
    lines += [shortened(line, width, 1) for line in below[:max(0, height - len(lines))]]
    return "\n".join(line.rstrip() for line in lines[:height])


def encodable(picture: str, encoding: Optional[str]) -> str:
    """Return a picture in the characters that a terminal of an encoding has."""
    try:
        picture.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        plain = re.sub("[\u2801-\u28ff]", "*", picture)
        plain = re.sub("[\u250c\u2510\u2514\u2518\u251c\u2524\u252c\u2534\u253c]", "+", plain)
        return plain.translate({0x2800: " ", 0x2500: "-", 0x2502: "|", 0xB7: "-", 0x2588: "#",
                                0x2593: "%", 0x2592: "+", 0x2591: ":"})
    return picture


def _figures(view: View, width: int) -> List[str]:
    status, left = view.status, view.status.get("seconds_left")
    parts = [
        ("epoch", _of(status.get("epoch"), status.get("epochs"))),
        ("call", _of(status.get("done"), status.get("total"))),
        ("loss", _number(status.get("loss"), "{:.4f}")),
        ("accuracy", _number(status.get("accuracy"), "{:.2f} %")),
        ("lr", _number(status.get("learning_rate"), "{:.3g}")),
        ("images/s", _number(status.get("images_per_second"), "{:,.1f}")),
        ("waiting for data", _number(status.get("data_wait_share"), "{:.0%}")),
        ("left", clock(left) if view.state == RUNNING and isinstance(left, (int, float)) else ""),
        ("model", _text(status.get("model"))), ("data", _text(status.get("dataset"))),
        ("backend", _text(status.get("backend"))), ("device", _text(status.get("device"))),
        ("workers", _text(status.get("workers"))), ("processes", _text(status.get("instances"))),
        ("replicas", _text(status.get("replicas")))]
    best = best_validation(view.rows)
    if isinstance(best.get("top1"), (int, float)):
        parts.insert(4, ("best top-1", f"{best['top1']:.2f} % (epoch {best.get('epoch')})"))
    shown = [printable(f"{name} {value}") for name, value in parts if value]
    return list(_wrapped(shown, width))[:4]


def _wrapped(parts: Iterable[str], width: int) -> Iterable[str]:
    line = ""
    for part in parts:
        if line and cells(line) + 3 + cells(part) > width:
            yield line
            line = ""
        line = f"{line} · {part}" if line else shortened(part, width, 1)
    if line:
        yield line


def _curves(view: View, width: int, height: int) -> List[str]:
    """Return the curves, two side by side where there is room."""
    curves: List[Tuple[str, List[Tuple[float, float]]]] = [
        ("loss", _points(view.rows, "train", "loss")),
        ("validation top-1 %", _points(view.rows, "validation", "top1")),
        ("learning rate", _points(view.rows, "train", "learning_rate")),
        ("images/s", _points(view.rows, "train", "images_per_second"))]
    shown = [curve for curve in curves if curve[1]]
    if not shown:
        return ["waiting for the first metrics" if view.state == RUNNING
                else "no metrics were recorded"]
    across = 2 if width >= 72 and len(shown) > 1 else 1
    down = 2 if height >= 22 and len(shown) > across else 1
    each_width, each_height = width // across - (across > 1), height // down
    lines: List[str] = []
    for first in range(0, across * down, across):
        row = [_curve(name, points, each_width, each_height)
               for name, points in shown[first:first + across]]
        for number in range(each_height if row else 0):
            lines.append("  ".join(
                (part[number] if number < len(part) else "").ljust(each_width) for part in row))
    return lines


def _curve(name: str, points: Sequence[Tuple[float, float]], width: int, height: int) -> List[str]:
    import plotext

    plotext.clear_figure()
    plotext.limit_size(False, False)  # a terminal may not state its size
    plotext.theme("clear")
    plotext.plot_size(width, height)
    plotext.title(name)
    places, values = zip(*points)
    if len(points) == 1:
        plotext.scatter([*places], [*values])
    else:
        plotext.plot([*places], [*values], marker="braille")
    drawn_curve: str = plotext.uncolorize(plotext.build())
    plotext.clear_figure()
    return [line.rstrip()[:width] for line in drawn_curve.splitlines()]


def _points(rows: Sequence[Mapping[str, Any]], kind: str, name: str) -> List[Tuple[float, float]]:
    """Return a curve over the epochs; of many points, the means of groups."""
    points = [(float(row["epoch"]), float(row[name])) for row in rows
              if row.get("kind") == kind and row.get("weights") in (None, "raw")
              and isinstance(row.get(name), (int, float))
              and isinstance(row.get("epoch"), (int, float))
              and abs(float(row["epoch"])) < LARGEST and abs(float(row[name])) < LARGEST]
    group = -(-len(points) // POINTS) or 1
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part))
            for part in (points[start:start + group] for start in range(0, len(points), group))]


def _classes(view: View) -> List[str]:
    known = [row for row in view.classes if isinstance(row.get("top1"), (int, float))]
    if not known:
        return []
    worst = sorted(known, key=lambda row: float(row["top1"]))[:WORST]
    return ["worst classes: " + " · ".join(
        f"{printable(str(row.get('class')))} {row['top1']:.0f} %" for row in worst)]


def _of(done: Any, total: Any) -> str:
    if done is None or (done == 0 and not total):
        return ""
    return f"{done}/{total}" if total else str(done)


def _number(value: Any, form: str) -> str:
    if not isinstance(value, (int, float)):
        return ""
    return form.format(value) if abs(value) < 1e9 else f"{value:.3g}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def age(status: Mapping[str, Any]) -> float:
    """Return the seconds since a status was written."""
    written = status.get("time")
    return max(0.0, time.time() - written) if isinstance(written, (int, float)) else 0.0


def facts_of(options: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the information in the options of a run, before other files exist."""
    return {"model": options.get("model"), "dataset": options.get("data"),
            "backend": options.get("backend"), "epochs": options.get("epoch")}
