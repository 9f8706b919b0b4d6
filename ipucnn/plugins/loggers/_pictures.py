"""Pictures that loggers record: a confusion matrix as a heat map, images side by side."""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple

SIDE = 512
"""Smallest height and width of the heat map of a confusion matrix, in pixels."""

LARGEST = 1024
"""Maximum number of classes of a confusion matrix that is drawn."""


def heat_map(confusion: Sequence[Sequence[int]]) -> Any:
    """Return a confusion matrix as an image, uint8 `(side, side, 3)`.

    A row is a true class; the colour is the share of its images, from white (0) to dark blue (1).
    """
    import numpy as np

    counts = np.asarray(confusion, dtype=np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    repeats = max(1, -(-SIDE // max(1, len(counts))))
    white, blue = np.array([255.0, 255.0, 255.0]), np.array([8.0, 48.0, 107.0])
    pixels = white + (shares ** 0.5)[..., None] * (blue - white)
    return pixels.round().astype(np.uint8).repeat(repeats, 0).repeat(repeats, 1)


def png(image: Any) -> bytes:
    """Return an image as a PNG file."""
    import io

    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")
    return content.getvalue()


def worst(confusion: Sequence[Sequence[int]],
          names: Sequence[str]) -> List[Tuple[str, str, int]]:
    """Return the 20 most frequent mistakes: true class, predicted class, images."""
    import numpy as np

    counts = np.array(confusion, dtype=np.int64)
    np.fill_diagonal(counts, 0)
    order = np.argsort(counts, axis=None, kind="stable")[::-1][:20]
    rows = [np.unravel_index(place, counts.shape) for place in order]
    return [(names[true], names[found], int(counts[true, found])) for true, found in rows
            if counts[true, found]]
