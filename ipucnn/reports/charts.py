"""Charts as static SVG: lines, bars and histograms, with values for the page's script.

Colours are CSS classes, which the page defines for light and dark mode. All texts are escaped.
"""

from __future__ import annotations

import math
import unicodedata
from typing import List, Optional, Sequence, Tuple

from markupsafe import Markup

from ipucnn.core.names import printable
from ipucnn.reports.curves import CurveChart

WIDTH, HEIGHT = 420, 240
LEFT, RIGHT, TOP, BOTTOM = 64, 408, 10, 206
COLOURS = 8
_LEAST_ROOM = 100.0  # of the longest of horizontal bars

_EMPTY = Markup("")


def text(x: float, y: float, content: str, css: str = "") -> Markup:
    """Return a text of a chart."""
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>').format(
        x, y, css, printable(content))


def text_width(content: str) -> float:
    """Return about the width of a text of a chart in pixels."""
    return sum(12.5 if letter in "MWmw" or unicodedata.east_asian_width(letter) in "WF" else
               9.0 if letter.isupper() else 7.2 for letter in printable(content))


def tick_label(value: float) -> str:
    """Return a value in few characters."""
    size = abs(value)
    if size >= 1e6:
        return f"{value:.3g}".replace("e+0", "e")
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def exact_label(value: float) -> str:
    """Return a round value of an axis in as few characters as state it exactly."""
    label = tick_label(value)
    return label if float(label.replace(",", "")) == value else f"{value:,.12g}"


def ticks(low: float, high: float, most: int = 5) -> List[float]:
    """Return round values from at most `low` to at least `high`."""
    if not high - low > 1e-9 * max(abs(low), abs(high)):  # they differ by rounding at most
        margin = max(1.0, 1e-6 * abs(high))  # 1 is less than the rounding of large values
        low, high = (low - margin, high + margin) if low else (0.0, 1.0)
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * place:.12g}") for place in range(first, last + 1)]


class Axes:
    """Maps values to places in a chart, and draws the axes.

    Args:
        x: smallest and largest value to the right.
        y: smallest and largest value upwards; extended to round values.
    """

    def __init__(self, x: Tuple[float, float], y: Tuple[float, float]) -> None:
        self.y_ticks = ticks(*y)
        self._low, self._high = self.y_ticks[0], self.y_ticks[-1]
        self._first, self._last = x if x[1] > x[0] else (x[0] - 0.5, x[0] + 0.5)

    def across(self, value: float) -> float:
        """Return the horizontal place of a value."""
        return LEFT + (RIGHT - LEFT) * (value - self._first) / (self._last - self._first)

    def up(self, value: float) -> float:
        """Return the vertical place of a value."""
        return BOTTOM - (BOTTOM - TOP) * (value - self._low) / (self._high - self._low)

    def drawn(self, x_label: str, x_ticks: Optional[Sequence[float]] = None) -> Markup:
        """Return grid lines, ticks and the label below."""
        parts = []
        for value in self.y_ticks:
            place = self.up(value)
            parts += [Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                LEFT, RIGHT, place, place), text(LEFT - 6, place + 4, exact_label(value), "end")]
        places = x_ticks if x_ticks is not None else [
            value for value in ticks(self._first, self._last, 6)
            if self._first - 1e-9 <= value <= self._last + 1e-9
            and (value == int(value) or self._last - self._first < 5)]
        parts += [text(self.across(value), BOTTOM + 16, exact_label(value), "middle")
                  for value in places]
        parts.append(text((LEFT + RIGHT) / 2, HEIGHT - 4, x_label, "middle label"))
        return _EMPTY.join(parts)


def svg(content: Markup, label: str, size: Tuple[float, float] = (WIDTH, HEIGHT),
        css: str = "") -> Markup:
    """Return an SVG image of a fixed aspect ratio that a page scales."""
    return Markup('<svg viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}" class="{}">{}</svg>'
                  ).format(*size, printable(label), css, content)


def line_chart(chart: CurveChart) -> Markup:
    """Return the SVG of curves over epochs; each has its values for the page's script."""
    points = [point for curve in chart.curves for point in curve.points]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low = min(ys)
    axes = Axes((min(xs), max(xs)), (0.0 if 0 < low < 0.5 * max(ys) else low, max(ys)))
    parts = [axes.drawn("epoch", _whole(xs))]
    for curve in chart.curves:
        places = [(axes.across(x), axes.up(y)) for x, y in curve.points]
        path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in places)
        css = f"line c{curve.group % COLOURS}" + (
            " dashed" if curve.dashed else "") + (" again" if curve.group >= COLOURS else "")
        parts.append(Markup('<path class="{}" d="{}" data-name="{}" data-x="{}" data-y="{}"/>'
                            ).format(css, path, printable(curve.name),
                                     " ".join(f"{x:.6g}" for x, _ in curve.points),
                                     " ".join(f"{y:.5g}" for _, y in curve.points)))
        if len(places) == 1:
            parts.append(Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(
                "dot " + css, *places[0]))
    parts.append(Markup('<g class="cursor" visibility="hidden"><line y1="{}" y2="{}"/></g>'
                        ).format(TOP, BOTTOM))
    first, last = min(xs), max(xs)
    return Markup('<div class="plot" tabindex="0" role="group" aria-label="{}" data-first="{}" '
                  'data-last="{}" data-left="{}" data-right="{}" data-width="{}">{}</div>').format(
        printable(f"{chart.title}: arrow keys show values"), *(
            (first, last) if last > first else (first - 0.5, first + 0.5)), LEFT, RIGHT, WIDTH,
        svg(_EMPTY.join(parts), chart.title))


def _whole(places: Sequence[float]) -> Optional[List[float]]:
    """Return the ticks of a few whole epochs; None where the axis chooses them."""
    first, last = min(places), max(places)
    if last - first > 6 or any(place != int(place) for place in places):
        return None
    return [float(place) for place in range(int(first), int(last) + 1)]


def bar(x: float, y: float, size: Tuple[float, float], css: str, title: str) -> Markup:
    """Return a rectangle with a title, which browsers show beside the pointer."""
    return Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">'
                  '<title>{}</title></rect>').format(css, x, y, max(0.0, size[0]),
                                                     max(0.0, size[1]), printable(title))


def histogram(values: Sequence[float], marks: Sequence[Tuple[str, float]], unit: str,
              label: str) -> Markup:
    """Return the SVG of a histogram.

    Args:
        values: in ascending order, not empty.
        marks: names and values of vertical lines.
        unit: of the values.
        label: what it shows.
    """
    low, high = values[0], values[-1]
    # so that one slow call does not compress all others into one bar
    end = values[min(len(values) - 1, math.ceil(0.995 * len(values)) - 1)]
    if high > low and end < low + 0.25 * (high - low):
        high = max(end, *(value for _, value in marks), low)
    count = max(5, min(40, round(2 * len(values) ** 0.5)))
    width = (high - low) / count or 1.0
    counts = [0] * count
    for value in values:
        counts[min(count - 1, max(0, int((value - low) / width)))] += 1
    axes = Axes((low, low + width * count), (0, max(counts)))
    parts = [axes.drawn(unit)]
    for place, number in enumerate(counts):
        begin, top = axes.across(low + place * width), axes.up(number)
        beyond = " and more" if place == count - 1 and values[-1] > high else ""
        parts.append(bar(begin, top, (axes.across(low + (place + 1) * width) - begin - 1,
                                      BOTTOM - top), "bar c0",
                         f"{tick_label(low + place * width)} to "
                         f"{tick_label(low + (place + 1) * width)} {unit}{beyond}: {number}"))
    names = []  # after all lines, so that none crosses a name
    for row, (name, value) in enumerate(marks):
        at = axes.across(min(value, low + width * count))
        parts.append(Markup('<line class="mark" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
            at, at, TOP, BOTTOM))
        right = at > 0.75 * RIGHT
        names.append(text(at + (-4 if right else 4), TOP + 12 + 14 * row,
                          f"{name} {tick_label(value)}", "strong" + (" end" if right else "")))
    return svg(_EMPTY.join([*parts, *names]), label)


def bars(rows: Sequence[Tuple[str, float, Optional[float]]], unit: str, label: str) -> Markup:
    """Return the SVG of horizontal bars.

    Args:
        rows: name, value, and a second value that is marked by a line, or None.
        unit: of the values.
        label: what it shows.
    """
    most = max([value for _, value, _ in rows] + [mark or 0 for *_, mark in rows]) or 1.0
    height, begin = 30, max(120.0, 16 + max(text_width(name) for name, *_ in rows))
    room = max(_LEAST_ROOM, RIGHT - begin - 70)  # long names widen the chart
    parts = []
    for place, (name, value, mark) in enumerate(rows):
        y = 6 + place * height
        parts += [text(begin - 8, y + 15, name, "end"),
                  bar(begin, y, (room * value / most, 20), "bar c0",
                      f"{name}: {value:,.1f} {unit}")]
        at = begin + room * value / most
        if mark is not None:
            x = begin + room * mark / most
            parts.append(Markup('<line class="mark" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}">'
                                '<title>{}</title></line>').format(
                x, x, y - 3, y + 23, f"{mark:,.1f} {unit}"))
        parts.append(text(at + 6, y + 15, f"{value:,.0f}", "strong"))
    return svg(_EMPTY.join(parts), label, (begin + room + 70 + WIDTH - RIGHT,
                                           10 + height * len(rows)))


def reliability(calibration: Sequence[Tuple[int, float, int]], label: str) -> Markup:
    """Return the SVG of a reliability diagram.

    Args:
        calibration: images, sum of probabilities and right answers in equal ranges.
        label: what it shows.
    """
    axes = Axes((0, 1), (0, 1))
    parts = [axes.drawn("probability of the predicted class", (0, 0.2, 0.4, 0.6, 0.8, 1)),
             Markup('<line class="mark" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                 axes.across(0), axes.across(1), axes.up(0), axes.up(1))]
    total = sum(images for images, *_ in calibration) or 1
    for place, (images, certain, right) in enumerate(calibration):
        if not images:
            continue
        begin = axes.across(place / len(calibration))
        share, mean = right / images, certain / images
        width = axes.across((place + 1) / len(calibration)) - begin - 1
        # bars of few images are less reliable and drawn pale
        parts.append(Markup('<g opacity="{:.2f}">{}</g>').format(
            0.35 + 0.65 * min(1.0, 10 * images / total),
            bar(begin, axes.up(share), (width, BOTTOM - axes.up(share)), "bar c0",
                f"{images:,} images: probability {mean:.1%}, right {share:.1%}")))
        parts.append(Markup('<circle class="dot c1" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(
            axes.across(mean), axes.up(share)))
    return svg(_EMPTY.join(parts), label)
