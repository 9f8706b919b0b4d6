"""Draws the pipeline stages of a plan."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence

from markupsafe import Markup

from ipucnn.reports.charts import bar, svg, text, text_width

_LANE, _LEFT, _WIDTH = 26, 120, 720
_MOST_MICRO_BATCHES = 24


def stage_boxes(stages: Sequence[Dict[str, Any]]) -> Markup:
    """Return the SVG of the stages as bars of their share of the work, with their figures."""
    parts: List[Markup] = []
    most = max(float(stage["share"]) for stage in stages) or 1.0
    left = max(_LEFT, 8 + max(text_width(str(stage["begins_at"])) for stage in stages))
    for place, stage in enumerate(stages):
        y = 8 + place * 56
        share = float(stage["share"])
        parts += [
            text(0, y + 14, f"stage {place + 1}", "strong"),
            text(0, y + 32, str(stage["begins_at"]), ""),
            bar(left, y, (420 * share / most, 24), f"bar c{place % 8}",
                f"{share:.1%} of the multiply-adds"),
            text(left + 420 * share / most + 8, y + 16, f"{share:.1%} of the work", "strong"),
            text(left, y + 40, f"{int(stage['parameters']):,} parameters, "
                 f"{int(stage['multiply_adds']) / 1e6:,.0f} M multiply-adds, receives "
                 f"{int(stage['inputs']):,} values per image", "")]
    return svg(Markup("").join(parts), "pipeline stages",
               (_WIDTH + left - _LEFT, 8 + 56 * len(stages)), "wide")


def schedule(stages: int, micro_batches: int) -> Markup:
    """Return the SVG of the time in which the stages have work: one column per step.

    Args:
        stages: number of stages.
        micro_batches: per weight update; only the first ones of many are drawn.
    """
    count = min(micro_batches, _MOST_MICRO_BATCHES)
    steps = count + stages - 1
    cell = min(36.0, (_WIDTH - _LEFT) / steps)
    parts: List[Markup] = []
    for stage in range(stages):
        y = 4 + stage * _LANE
        parts.append(text(0, y + 16, f"stage {stage + 1}", "strong"))
        for step in range(steps):
            number = step - stage
            busy = 0 <= number < count
            parts.append(bar(_LEFT + step * cell, y, (cell - 2, _LANE - 4),
                             f"bar c{stage % 8}" if busy else "idle",
                             f"micro-batch {number + 1}" if busy else "no work"))
            if busy and cell > 22:
                parts.append(text(_LEFT + (step + 0.5) * cell - 1, y + 15, str(number + 1),
                                  "middle inbar"))
    return svg(Markup("").join(parts), "micro-batches over time", (_WIDTH, 8 + stages * _LANE),
               "wide")
