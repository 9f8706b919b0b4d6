"""The curves of a training, from its rows of metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Sequence, Tuple

from ipucnn.reports.finished_run import FinishedRun, number
from ipucnn.reports.metric_rows import LARGEST

MOST_POINTS = 600
"""Maximum number of points of a curve; of more, the extremes of each range are kept."""


@dataclass(frozen=True)
class Curve:
    """One curve over the epochs.

    Attributes:
        name: for the legend.
        points: epochs and values, in ascending order of epochs.
        group: number of its colour.
        dashed: drawn with dashes.
    """

    name: str
    points: Sequence[Tuple[float, float]]
    group: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class CurveChart:
    """The curves of one quantity.

    Attributes:
        title: what it is.
        unit: of the values.
        curves: of all runs.
        best: `min` or `max`, for the value that a summary names; may be empty.
    """

    title: str
    unit: str
    curves: Sequence[Curve]
    best: str = ""


_QUANTITIES: Sequence[Tuple[str, str, str, Sequence[Tuple[str, str, str, float]]]] = (
    ("Loss", "", "min", (("training", "train", "loss", 1), ("validation", "raw", "loss", 1),
                         ("moving average", "ema", "loss", 1))),
    ("Accuracy", "%", "max", (("training", "train", "accuracy", 1), ("top-1", "raw", "top1", 1),
                              ("top-5", "raw", "top5", 1),
                              ("top-1, moving average", "ema", "top1", 1))),
    ("Learning rate", "", "", (("", "train", "learning_rate", 1),)),
    ("Loss scaling", "", "", (("", "train", "loss_scaling", 1),)),
    ("Throughput", "images/s", "", (("", "train", "images_per_second", 1),)),
    ("Waiting for data", "% of the time", "", (("", "train", "data_wait_share", 100),)))
"""Title, unit, best, and for each curve its name, the rows it is from, their field and a factor."""


def charts_of(runs: Sequence[FinishedRun]) -> List[CurveChart]:
    """Return the charts of trainings together; those without values are left out."""
    trained = [(place, run) for place, run in enumerate(runs) if run.rows]
    several = len(trained) > 1
    # added classes make the task harder: values before and after them have no common best
    grown = any(len({row["classes"] for row in run.rows if row.get("classes")}) > 1
                for _, run in trained)
    found = []
    for title, unit, best, wanted in _QUANTITIES:
        curves = []
        for place, run in trained:
            for order, (name, source, column, factor) in enumerate(wanted):
                if several and name == "top-5":
                    continue
                points = _points(run.rows, source, column, factor)
                if not points:
                    continue
                label = ": ".join(filter(None, (run.name if several else "", name)))
                curves.append(Curve(label or title.lower(), points,
                                    place if several else order, several and order > 0))
        if title == "Loss scaling" and all(
                value == curve.points[0][1] for curve in curves for _, value in curve.points):
            continue  # constant, as it nearly always is
        if curves:
            found.append(CurveChart(title, unit, curves, "" if grown else best))
    return found


def _points(rows: Iterable[Dict[str, Any]], source: str, column: str,
            factor: float) -> List[Tuple[float, float]]:
    points = []
    for row in rows:
        kind = row.get("weights", "raw") if row.get("kind") == "validation" else row.get("kind")
        epoch, value = number(row.get("epoch")), number(row.get(column))
        if kind == source and epoch is not None and value is not None \
                and abs(epoch) < LARGEST and abs(value) < LARGEST:
            points.append((epoch, factor * value))
    return thinned(sorted(points, key=lambda point: point[0]))


def thinned(points: Sequence[Tuple[float, float]],
            most: int = MOST_POINTS) -> List[Tuple[float, float]]:
    """Return at most `most` points of a curve, with its extremes, its first and its last point."""
    if len(points) <= most:
        return list(points)
    ranges = (most - 2) // 2
    kept = {0, len(points) - 1}
    for place in range(ranges):
        part = range(place * len(points) // ranges, (place + 1) * len(points) // ranges)
        kept.add(min(part, key=lambda at: points[at][1]))
        kept.add(max(part, key=lambda at: points[at][1]))
    return [points[at] for at in sorted(kept)]
