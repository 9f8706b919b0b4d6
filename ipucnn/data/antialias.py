"""Resizes uint8 images with numpy, with the same result as torch.

torch resizes uint8 images in fixed point: the weights of a filter are rounded to 16-bit integers,
and every sum is rounded to 8 bits, first along rows, then along columns. The sums are exact in any
order, so this module, which needs no torch, gives the same pixels. It is slower: for many images,
loading torch pays.
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
"""Multiplications that numpy's matrix product does at a time: more are divided among threads, which
have to be woken up for each block and then wait for the next one, so that an image may take a
hundred times as long."""

_CUBIC = -0.5
"""The coefficient of the cubic filter with antialiasing, as in Pillow."""

Band = Tuple[int, int, int, int, "Array", "Array"]
"""First and end of the results, first and end of the values read, and the weights: the upper part,
in units of 128, and the remainder."""


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
    lines = pixels.transpose(2, 0, 1)
    lines = _along_last(lines, width, columns, interpolation)
    lines = _along_last(lines.transpose(0, 2, 1), height, rows, interpolation)
    return numpy.ascontiguousarray(lines.transpose(2, 1, 0))


def _along_last(lines: Array, whole: int, kept: range, interpolation: str) -> Array:
    """Return lines, uint8 `(..., n)`, resampled to `(..., whole)`, of which a range is kept."""
    if whole == lines.shape[-1]:
        return lines[..., kept.start:kept.stop]
    bands, bits = _bands(lines.shape[-1], whole, kept, interpolation)
    values = numpy.ascontiguousarray(lines, dtype=numpy.float32).reshape(-1, lines.shape[-1])
    result = numpy.empty((len(values), len(kept)), numpy.uint8)
    for first, end, begin, stop, upper, lower in bands:
        rows = max(1, _PRODUCTS // upper.size)
        for top in range(0, len(values), rows):
            part = values[top:top + rows, begin:stop]
            # each of the two products is a whole number below 2^24, which float32 holds exactly
            sums = (part @ upper).astype(numpy.int32) * 128 + (part @ lower).astype(numpy.int32)
            sums += 1 << (bits - 1)
            result[top:top + rows, first:end] = (sums >> bits).clip(0, 255)
    return result.reshape(*lines.shape[:-1], len(kept))


@lru_cache(maxsize=64)
def _bands(size: int, whole: int, kept: range, interpolation: str) -> Tuple[List[Band], int]:
    """Return the weights for resampling `size` values to `whole`, and their fractional bits.

    The bands are those of the results that are kept, numbered from 0.
    """
    firsts, rows = _weights(size, whole, interpolation)
    largest = max(float(row.max()) for row in rows)
    bits = 0
    while bits < 22 and int(0.5 + largest * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    firsts, rows = firsts[kept.start:kept.stop], rows[kept.start:kept.stop]
    length = len(kept)
    bands: List[Band] = []
    for first in range(0, length, _BLOCK):
        end = min(length, first + _BLOCK)
        begin, stop = firsts[first], max(firsts[place] + len(rows[place])
                                         for place in range(first, end))
        weights = numpy.zeros((stop - begin, end - first), numpy.int32)
        for place in range(first, end):
            scaled = rows[place] * (1 << bits)
            start = firsts[place] - begin
            weights[start:start + len(scaled), place - first] = numpy.trunc(
                scaled + numpy.where(scaled < 0, -0.5, 0.5))
        upper = weights >> 7
        bands.append((first, end, begin, stop, upper.astype(numpy.float32),
                      (weights - upper * 128).astype(numpy.float32)))
    return bands, bits


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
