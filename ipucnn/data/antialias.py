"""Resizes uint8 images with numpy, with the same result as torch.

torch resizes uint8 images in fixed point: the weights of a filter are rounded to 16-bit integers,
and every sum is rounded to 8 bits, first along rows, then along columns. The sums are exact in any
order, so this module, which does not need torch, computes the same pixels. It takes three to four
times as long; for many images, importing torch is faster.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, List, Optional, Tuple

import numpy

if TYPE_CHECKING:
    Array = numpy.ndarray[Any, Any]

_BLOCK = 16
"""Results that are computed together: they read overlapping parts of a line."""

_PRODUCTS = 1 << 18
"""Maximum number of multiplications of a matrix product in numpy. Larger products are divided among
threads, which must be woken up for each block; an image can then take a hundred times as long."""

_CUBIC = -0.5
"""The coefficient of the cubic filter with antialiasing, as in Pillow."""

Band = Tuple[int, int, int, int, "Array"]
"""First and end of the results, first and end of the values read, and their weights."""


def resized(pixels: Array, height: int, width: int, interpolation: str,
            kept: Optional[Tuple[range, range]] = None) -> Array:
    """Return an image at another size, antialiased.

    Args:
        pixels: uint8, `(rows, columns, channels)`.
        height: of the whole result, in pixels.
        width: of the whole result, in pixels.
        interpolation: `bilinear` or `bicubic`.
        kept: which rows and columns of it to return; only these are computed.
    """
    rows, columns = kept or (range(height), range(width))
    across, down = (_bands(*sides, interpolation) for sides in (
        (pixels.shape[1], width, columns), (pixels.shape[0], height, rows)))
    (above, below), (before, after) = ((bands[0][2], max(band[3] for band in bands))
                                       for bands in (down, across))
    # a plane for each channel: the places along a line are next to each other
    planes = numpy.ascontiguousarray(pixels[above:below, before:after].transpose(2, 0, 1))
    lines = planes.astype(across[0][4].dtype).reshape(-1, planes.shape[2])
    middle = numpy.empty((len(lines), len(columns)), lines.dtype)
    for first, end, begin, stop, weights in across:
        step = max(1, _PRODUCTS // weights.size)
        for top in range(0, len(lines), step):
            numpy.matmul(lines[top:top + step, begin - before:stop - before], weights.T,
                         out=middle[top:top + step, first:end])
    numpy.floor(_half_up(middle, interpolation), out=middle)
    middle = middle.reshape(*planes.shape[:2], -1).astype(down[0][4].dtype, copy=False)
    sums = numpy.empty((len(planes), len(rows), len(columns)), middle.dtype)
    for first, end, begin, stop, weights in down:
        step = max(1, _PRODUCTS // weights.size)
        for channel, plane in enumerate(middle):
            for left in range(0, len(columns), step):
                numpy.matmul(weights, plane[begin - above:stop - above, left:left + step],
                             out=sums[channel, first:end, left:left + step])
    result = numpy.empty((len(rows), len(columns), len(planes)), numpy.uint8)
    whole = _half_up(sums, interpolation).astype(numpy.uint8)  # without the fraction
    for channel, plane in enumerate(whole):  # a third of the time of one assignment
        result[:, :, channel] = plane
    return result


def _half_up(sums: Array, interpolation: str) -> Array:
    """Return sums, changed, of which the whole part is the sum rounded half up, 0 to 255."""
    sums += 0.5
    if interpolation == "bicubic":  # the other filter has no negative weights
        numpy.clip(sums, 0, 255, out=sums)
    return sums


@lru_cache(maxsize=64)
def _bands(size: int, whole: int, kept: range, interpolation: str) -> List[Band]:
    """Return the weights for resampling `size` values to `whole`.

    The bands are those of the results that are kept, numbered from 0. The weights are of a type in
    which every sum of products is exact.
    """
    if size == whole:
        firsts, rows = list(range(size)), [numpy.ones(1)] * size
    else:
        firsts, rows = _weights(size, whole, interpolation)
    largest = max(float(row.max()) for row in rows)
    bits = 0
    while bits < 22 and int(0.5 + largest * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    firsts, rows = firsts[kept.start:kept.stop], rows[kept.start:kept.stop]
    whole_numbers = [numpy.trunc(row * (1 << bits) + numpy.where(row < 0, -0.5, 0.5))
                     for row in rows]
    most = 255 * max(float(numpy.abs(row).sum()) for row in whole_numbers) + (1 << bits) / 2
    kind = numpy.float32 if most < 1 << 24 else numpy.float64
    bands: List[Band] = []
    for first in range(0, len(kept), _BLOCK):
        end = min(len(kept), first + _BLOCK)
        begin, stop = firsts[first], max(firsts[place] + len(rows[place])
                                         for place in range(first, end))
        weights = numpy.zeros((end - first, stop - begin), kind)
        for place in range(first, end):
            start = firsts[place] - begin
            weights[place - first, start:start + len(rows[place])] = whole_numbers[place]
        bands.append((first, end, begin, stop, weights / kind(1 << bits)))
    return bands


def _weights(size: int, length: int, interpolation: str) -> Tuple[List[int], List[Array]]:
    """Return, for each result, the first value that it reads and the weights, whose sum is 1."""
    scale = size / length
    stretch = max(scale, 1.0)
    support = (2 if interpolation == "bicubic" else 1) * stretch
    firsts, rows = [], []
    for place in range(length):
        centre = scale * (place + 0.5)
        first = max(int(centre - support + 0.5), 0)
        count = min(int(centre + support + 0.5), size) - first
        distance = numpy.abs((numpy.arange(count) + first - centre + 0.5) / stretch)
        row = _cubic(distance) if interpolation == "bicubic" else (1 - distance).clip(0)
        firsts.append(first)
        rows.append(row / row.sum())
    return firsts, rows


def _cubic(x: Array) -> Array:
    """Return the cubic filter (Keys, 1981) at distances of at least 0."""
    a = _CUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return numpy.where(x < 1, near, numpy.where(x < 2, far, 0.0))
