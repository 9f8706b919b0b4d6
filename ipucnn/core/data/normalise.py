"""Image normalisation by a worker on the host, with numpy; see `ipucnn.core.normalisation`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Tuple

import numpy

from ipucnn.core.constants import IMAGENET_MEAN, IMAGENET_STD


def normalise_into(pixels: Any, out: Any) -> None:
    """Write pixels into `out` with ImageNet's mean and deviation taken out.

    The result is `ipucnn.core.normalisation.normalise`'s, bit for bit.

    Args:
        pixels: uint8 array, `(height, width, 3)`.
        out: float32 array of that shape.
    """
    height, width, channels = pixels.shape
    scale, shift = _rows(width)
    # whole rows at once: numpy is slow where the innermost dimension is short
    rows = out.reshape(height, width * channels)
    numpy.multiply(pixels.reshape(height, width * channels), scale, out=rows)
    numpy.subtract(rows, shift, out=rows)


@lru_cache(maxsize=4)
def _rows(width: int) -> Tuple[Any, Any]:
    """Return scale and shift of a row of pixels: (x/255 - mean)/std is x*scale - shift."""
    mean = numpy.asarray(IMAGENET_MEAN, dtype=numpy.float32)
    std = numpy.asarray(IMAGENET_STD, dtype=numpy.float32)
    return (numpy.tile(1 / (255 * std), width).astype(numpy.float32),
            numpy.tile(mean / std, width).astype(numpy.float32))
