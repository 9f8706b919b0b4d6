"""Creates random example images for compiling a graph and for comparing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Tuple

if TYPE_CHECKING:
    import numpy


def random_images(shape: Tuple[int, ...], dtype: str, seed: int) -> numpy.ndarray[Any, Any]:
    """Return random images, normalised or uint8.

    Args:
        shape: `(n, 3, size, size)`.
        dtype: `uint8`, whose images are 0 to 255, `float32` or `float16`.
        seed: of the random numbers.
    """
    import numpy

    images = numpy.random.default_rng(seed).standard_normal(shape, dtype=numpy.float32)
    if dtype == "uint8":
        images = (images * 64 + 128).clip(0, 255)
    return images.astype(dtype, copy=False)
