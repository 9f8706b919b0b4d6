"""Plots a learning-rate schedule as text."""

from __future__ import annotations

from ipucnn.training.setup.rates import LearningRate


def plot_schedule(rate: LearningRate, epochs: int, width: int = 80, height: int = 20) -> str:
    """Return the curve of a learning rate over the epochs as text.

    Args:
        rate: the schedule.
        epochs: end of the plotted range, which starts at 0.
        width: in characters.
        height: in lines.
    """
    import plotext

    points = max(2, 4 * width)
    places = [epochs * i / points for i in range(points)]
    plotext.clear_figure()
    plotext.limit_size(False, False)  # a terminal may not state its size
    plotext.theme("clear")
    plotext.plot_size(width, height)
    plotext.plot([*places], [rate.at(e, e + epochs / points) for e in places], marker="braille")
    plotext.xlabel("epoch")
    plotext.ylabel("learning rate")
    drawn: str = plotext.uncolorize(plotext.build())
    return "\n".join(line.rstrip() for line in drawn.splitlines())
