"""Resizes and crops images to a model's input size, in uint8.

Pixels are arrays `(height, width, 3)`: the layout of the decoders, and the fastest for resizing.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Optional, Tuple

if TYPE_CHECKING:
    from PIL import Image

    from ipucnn.core.preprocessing import Preprocessing

Pixels = Any
"""A uint8 array `(height, width, 3)`."""

Place = Tuple[int, int, int, int]

# Beyond this aspect ratio, resizing the whole image in `eval_transform` would make it too large.
_LONGEST_RATIO = 8


def eval_transform(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Return the central crop of an image at a model's input size.

    Args:
        pixels: uint8 RGB, `(height, width, 3)`, any size.
        preprocessing: of the model; its channel order and normalisation are not applied here.

    Returns:
        uint8, `(input_size, input_size, 3)`.
    """
    input_size, short = preprocessing.input_size, preprocessing.resize_size
    height, width = pixels.shape[:2]
    if preprocessing.resize == "squash":
        return _resized(pixels, (0, 0, height, width), short, short, preprocessing.interpolation,
                        input_size)
    # a box of Pillow starts between pixels, which `nearest` would round to another one
    if (_native(preprocessing.interpolation) or preprocessing.interpolation == "nearest") \
            and max(height, width) <= _LONGEST_RATIO * min(height, width):
        return resized(pixels, short, preprocessing.interpolation, input_size)
    return _resize_with_pillow(pixels, preprocessing)


def resized(pixels: Pixels, short: int, interpolation: str = "bilinear",
            crop: Optional[int] = None) -> Pixels:
    """Return an image whose shorter side is `short` pixels (antialiased), or its central square."""
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    return _resized(pixels, (0, 0, height, width), short * height // shorter,
                    short * width // shorter, interpolation, crop)


def center_crop(pixels: Pixels, size: int) -> Pixels:
    """Return the central square of an image that is at least as large, without copying it."""
    rows, columns = (_centre(side, size) for side in pixels.shape[:2])
    return pixels[rows.start:rows.stop, columns.start:columns.stop]


def _centre(side: int, size: int) -> range:
    """Return the places of a central square along a side."""
    first = round((side - size) / 2)
    return range(first, first + size)


def resized_crop(pixels: Pixels, top: int, left: int, height: int, width: int,
                 size: int) -> Pixels:
    """Return a part of an image at another size (bilinear, antialiased).

    Args:
        pixels: uint8, `(height, width, 3)`.
        top: first row of the part, in pixels.
        left: its first column.
        height: number of rows.
        width: number of columns.
        size: height and width of the result, in pixels.

    Returns:
        uint8, `(size, size, 3)`.
    """
    return _resized(pixels, (top, left, height, width), size, size)


def whole_at(pixels: Pixels, size: int) -> Pixels:
    """Return a whole image as `(size, size, 3)`; one of that size as it is."""
    height, width = pixels.shape[:2]
    if (height, width) == (size, size):
        return pixels
    return resized_crop(pixels, 0, 0, height, width, size)


def mirrored(pixels: Pixels) -> Pixels:
    """Return an image flipped horizontally."""
    import torch

    # numpy is slower at reversing items of three bytes
    image = torch.from_numpy(pixels.transpose(2, 0, 1)).flip(2).numpy()
    return image.transpose(1, 2, 0)


@lru_cache(maxsize=None)
def native_resize() -> bool:
    """Return whether torch resizes uint8 images without converting to float (torch 2.1)."""
    from importlib.metadata import version  # importing torch takes a second

    major, minor = version("torch").split(".")[:2]
    return (int(major), int(minor)) >= (2, 1)


def _native(interpolation: str) -> bool:
    """Return whether torch resizes uint8 images with this interpolation."""
    return interpolation in ("bilinear", "bicubic") and native_resize()


def _resized(pixels: Pixels, place: Place, height: int, width: int,
             interpolation: str = "bilinear", crop: Optional[int] = None) -> Pixels:
    """Return a part of an image (top, left, height, width) at another size.

    With `crop`, only the central square of this size is returned.
    """
    if "torch" not in sys.modules and place[2:] != (height, width) and _native(interpolation):
        from ipucnn.data import antialias  # the same pixels

        top, left, rows, columns = place
        kept = None if crop is None else (_centre(height, crop), _centre(width, crop))
        return antialias.resized(pixels[top:top + rows, left:left + columns], height, width,
                                 interpolation, kept)
    whole = _resized_with_torch(pixels, place, height, width, interpolation)
    return whole if crop is None else center_crop(whole, crop)


def _resized_with_torch(pixels: Pixels, place: Place, height: int, width: int,
                        interpolation: str) -> Pixels:
    """Return a part of an image at another size; with Pillow if torch does not support it."""
    top, left, rows, columns = place
    if (rows, columns) == (height, width):
        return pixels[top:top + rows, left:left + columns]
    if not _native(interpolation):
        part = pixels[top:top + rows, left:left + columns]
        return _pillow_crop(part, (0, 0, columns, rows), (height, width), interpolation)
    import torch
    from torch.nn.functional import interpolate

    # The stride of an axis added by `reshape` shows torch that channels are contiguous, so it uses
    # its fast path. Views are created by numpy, because every torch call releases the GIL and
    # waits for it again.
    part = pixels.reshape((1, *pixels.shape))[:, top:top + rows, left:left + columns]
    result = interpolate(torch.from_numpy(part.transpose(0, 3, 1, 2)), (height, width),
                         mode=interpolation, antialias=True)
    return result.numpy()[0].transpose(1, 2, 0)


def _resize_with_pillow(pixels: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Resize and crop in one: only the pixels of the crop are computed, whatever the shape."""
    input_size, short = preprocessing.input_size, preprocessing.resize_size
    height, width = pixels.shape[:2]
    shorter = min(height, width)

    def side(length: int) -> Tuple[float, float]:
        """Return start and end of the crop along a side, in pixels of the source."""
        resized = short * length // shorter
        start = round((resized - input_size) / 2)
        return start * length / resized, min((start + input_size) * length / resized, length)

    (left, right), (top, bottom) = side(width), side(height)
    return _pillow_crop(pixels, (left, top, right, bottom), (input_size, input_size),
                        preprocessing.interpolation)


def _pillow_crop(pixels: Pixels, box: Tuple[float, float, float, float], size: Tuple[int, int],
                 interpolation: str) -> Pixels:
    """Return the part of an image in `box` (left, top, right, bottom) at another size."""
    import numpy
    from PIL import Image

    # antialiased; `Image.Resampling` is missing from common versions of pillow-simd
    method = getattr(Image, interpolation.upper())
    return numpy.array(to_pillow(pixels).resize(size[::-1], method, box=box))


def to_pillow(pixels: Pixels) -> Image.Image:
    """Return pixels as an image of Pillow."""
    import numpy
    from PIL import Image

    return Image.fromarray(numpy.ascontiguousarray(pixels))
