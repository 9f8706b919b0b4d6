"""Classes of a report: the table, the confusion matrix as a heat map, and calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

from markupsafe import Markup

from ipucnn.core.names import printable
from ipucnn.reports.charts import svg, text, text_width

MOST_CLASSES = 32
"""Maximum number of classes of a heat map; those with the most errors are shown."""

MOST_PAIRS = 15
"""Maximum number of pairs of confused classes that are listed."""

_WIDEST_NAME = 137.0
"""Pixels of a name beside the heat map."""

Counts = Dict[Tuple[int, int], int]


@dataclass(frozen=True)
class ClassRow:
    """A class in the table.

    Attributes:
        name: of the class.
        images: with this label.
        correct: of them.
        answers: images that were answered with it.
        checked: those of them that have a label.
        mistaken: the wrong answer that its images got most often; may be empty.
    """

    name: str
    images: int
    correct: int
    answers: int
    checked: int
    mistaken: str

    @property
    def recall(self) -> Optional[float]:
        """Right answers among its images in per cent."""
        return 100 * self.correct / self.images if self.images else None

    @property
    def precision(self) -> Optional[float]:
        """Right answers among the labelled images that were answered with it, in per cent."""
        return 100 * self.correct / self.checked if self.checked else None


def confusion_of(evidence: Dict[str, Any]) -> Counts:
    """Return images by label and answer."""
    return {(int(label), int(answer)): int(images)
            for label, answer, images in evidence.get("confusion", [])}


def class_rows(evidence: Dict[str, Any]) -> List[ClassRow]:
    """Return the classes that occur, as labels or as answers, in the order of the outputs."""
    names, counts = evidence["classes"], confusion_of(evidence)
    answers = {int(number): int(times) for number, times in evidence.get("answers", [])}
    images: Dict[int, int] = {}
    checked: Dict[int, int] = {}
    worst: Dict[int, Tuple[int, str]] = {}
    for (label, answer), times in counts.items():
        images[label] = images.get(label, 0) + times
        checked[answer] = checked.get(answer, 0) + times
        if label != answer and times > worst.get(label, (0, ""))[0]:
            worst[label] = times, f"{names[answer]} ({times})"
    return [ClassRow(names[number], images.get(number, 0), counts.get((number, number), 0),
                     answers.get(number, 0), checked.get(number, 0),
                     worst.get(number, (0, ""))[1])
            for number in sorted({*images, *answers})]


def mistaken_pairs(evidence: Dict[str, Any]) -> List[Tuple[str, str, int]]:
    """Return label, answer and images of the most frequent mistakes."""
    names = evidence["classes"]
    wrong = [(images, label, answer)
             for (label, answer), images in confusion_of(evidence).items() if label != answer]
    return [(names[label], names[answer], images)
            for images, label, answer in sorted(wrong, key=lambda one: (-one[0], *one[1:])
                                                )[:MOST_PAIRS]]


def calibration_error(calibration: Sequence[Tuple[int, float, int]]) -> Optional[float]:
    """Return the expected calibration error: mean distance of probability and accuracy.

    Source: Guo et al., "On Calibration of Modern Neural Networks" (2017), equation 3.
    """
    total = sum(images for images, *_ in calibration)
    if not total:
        return None
    return sum(abs(right - certain) for _, certain, right in calibration) / total


@dataclass(frozen=True)
class HeatMap:
    """A confusion matrix as an image.

    Attributes:
        svg: the image.
        classes: how many it shows.
        of: how many there are.
    """

    svg: Markup
    classes: int
    of: int


def heat_map(evidence: Dict[str, Any]) -> Optional[HeatMap]:
    """Return the confusion matrix of the classes that occur; None without labels."""
    counts, names = confusion_of(evidence), evidence["classes"]
    if not counts:
        return None
    present = sorted({number for pair in counts for number in pair})
    chosen = present
    if len(present) > MOST_CLASSES:
        errors = dict.fromkeys(present, 0)
        for (label, answer), images in counts.items():
            if label != answer:
                errors[label] += images
                errors[answer] += images
        chosen = sorted(sorted(present, key=lambda number: -errors[number])[:MOST_CLASSES])
    totals = dict.fromkeys(present, 0)
    for (label, _), images in counts.items():
        totals[label] += images
    cell = 34 if len(chosen) <= 12 else 20
    shown = {number: _brief(names[number]) for number in chosen}
    edge = round(14 + max(map(text_width, shown.values())))
    parts = []
    for row, label in enumerate(chosen):
        y = edge + row * cell
        parts.append(text(edge - 6, y + cell / 2 + 4, shown[label], "end"))
        parts.append(Markup('<text class="" transform="translate({:.0f} {}) rotate(-60)">{}</text>'
                            ).format(edge + row * cell + cell / 2 + 4, edge - 6,
                                     shown[label]))
        for column, answer in enumerate(chosen):
            images = counts.get((label, answer), 0)
            share = images / totals[label] if totals[label] else 0
            parts.append(Markup(
                '<rect class="cell {}" x="{}" y="{}" width="{}" height="{}" {}><title>{}</title>'
                '</rect>').format(
                "hit" if label == answer else "miss", edge + column * cell, y, cell - 1, cell - 1,
                Markup('fill-opacity="{:.3f}"').format(_strength(share)),
                printable(f"{names[label]}, predicted {names[answer]}: {images} of "
                          f"{totals[label]} images ({share:.1%})")))
            if cell > 20 and images:
                parts.append(text(edge + (column + 0.5) * cell, y + cell / 2 + 4, str(images),
                                  "middle count" + (" light" if share > 0.55 else "")))
    height = edge + cell * len(chosen) + 2
    width = height + 0.55 * edge  # the last column's name leans beyond it
    image = svg(Markup("").join(parts), "confusion matrix: rows labels, columns predicted classes",
                (width, height), "matrix")
    return HeatMap(Markup('<div style="width:{:.0f}px">{}</div>').format(width, image),
                   len(chosen), len(present))


def _strength(share: float) -> float:
    """Return the opacity of a cell, by a power below 1, so that rare mistakes are visible."""
    return 0.04 + 0.96 * share ** 0.6 if share else 0.04


def _brief(name: str) -> str:
    """Return the beginning of a name that fits beside the matrix."""
    name = printable(name)
    if text_width(name) <= _WIDEST_NAME:
        return name
    name = name[:20]
    while text_width(name) > _WIDEST_NAME - 12:
        name = name[:-1]
    return f"{name}\u2026"
