"""Random augmentation of training images, in uint8.

Random draws depend on the seed, the epoch and the sample only: they are the same for any number of
workers, and in a resumed training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Tuple

import numpy

from ipucnn.core.registry.records import PADDED_CROP
from ipucnn.data import Box, ImageDataset
from ipucnn.data.dataset_checks import box_of
from ipucnn.data.jpeg import Part
from ipucnn.data.resize import mirrored, resized_crop, to_pillow, whole_at

if TYPE_CHECKING:
    from ipucnn.data.resize import Pixels, Place

SCALE = (0.08, 1.0)
"""Area of a random crop relative to the image (Szegedy et al., "Going Deeper", 2015)."""
RATIO = (3 / 4, 4 / 3)
"""Aspect ratio of a random crop, from the same source."""
ATTEMPTS = 10
LEAST_OVERLAP = 0.1
"""Share of a crop that must show the object, when its bounding box is known."""
PADDING = 1 / 8
"""Margin of a padded crop relative to the native size: 4 of CIFAR's 32 pixels ("Deep Residual
Learning", He et al., 2016, section 4.2)."""


@dataclass(frozen=True)
class TrainTransform:
    """Random crop, flip, and optional RandAugment.

    Attributes:
        input_size: height and width of the result in pixels.
        seed: of the training.
        dataset: the source of the images; its `recipe` determines the crop, and images of a
            `ready` dataset are not cropped.
        rand_augment: operations of RandAugment per image.
        magnitude: their strength, 0 to 30.
        min_area: smallest area of a random crop relative to the image.
        use_boxes: crops must overlap the object where its bounding box is known.
    """

    input_size: int
    seed: int
    dataset: ImageDataset
    rand_augment: int = 0
    magnitude: int = 9
    use_boxes: bool = False
    min_area: float = SCALE[0]

    def draw(self, index: int, epoch: int) -> Draw:
        """Return the random draw for a sample of an epoch, counted from 0."""
        return Draw(self, index, numpy.random.default_rng((self.seed, epoch, index)))


@dataclass
class Draw:
    """The random draw for one sample of one epoch; used once.

    Attributes:
        transform: the transform it belongs to.
        index: of the sample.
        random: its own generator; the crop is drawn first, then the flip, then the operations.
    """

    transform: TrainTransform
    index: int
    random: numpy.random.Generator
    _place: Optional[Place] = field(default=None, init=False)
    _part: Optional[Part] = field(default=None, init=False)

    def wanted(self, height: int, width: int) -> Part:
        """Return the part of an image that the crop needs, at no less than the input size."""
        transform = self.transform
        if transform.dataset.ready or transform.dataset.recipe == PADDED_CROP:
            return Part(height)
        if self._part is None:
            self._place = place = self._crop(height, width)
            by = next((by for by in (8, 4, 2) if min(place[2:]) >= by * transform.input_size), 1)
            # positions in a smaller image are rounded
            self._part = Part(min(height, place[0] + place[2] + (2 * by if by > 1 else 0)), by)
        return self._part

    def __call__(self, pixels: Pixels, size: Optional[Tuple[int, int]] = None) -> Pixels:
        """Return the augmented image, uint8 `(input_size, input_size, 3)`.

        Args:
            pixels: uint8, `(height, width, 3)`; of any size, or the `wanted` part.
            size: height and width of the whole image, where `pixels` is a part of it.
        """
        transform, random = self.transform, self.random
        if transform.dataset.recipe == PADDED_CROP:
            pixels = padded_crop(random, pixels, transform.dataset.native_size,
                                 transform.input_size)
        elif not transform.dataset.ready:
            place = self._place or self._crop(*pixels.shape[:2])
            if size is not None and size[1] != pixels.shape[1]:
                by = round(size[1] / pixels.shape[1])
                place = _scaled(place, size, (-(-size[0] // by), pixels.shape[1]))
            pixels = resized_crop(pixels, *place, transform.input_size)
        if transform.dataset.flippable and random.random() < 0.5:
            pixels = mirrored(pixels)
        return rand_augment(random, pixels, transform.rand_augment, transform.magnitude)

    def _crop(self, height: int, width: int) -> Place:
        transform = self.transform
        return crop(self.random, height, width,
                    box_of(transform.dataset, self.index) if transform.use_boxes else None,
                    transform.min_area)


def _scaled(place: Place, size: Tuple[int, int], reduced: Tuple[int, int]) -> Place:
    """Return a crop of an image of `size` in the coordinates of the reduced image."""
    begins = [min(round(begin * now / whole), now - 1)
              for begin, whole, now in zip(place, size, reduced)]
    lengths = [min(max(1, round(length * now / whole)), now - begin)
               for length, whole, now, begin in zip(place[2:], size, reduced, begins)]
    return begins[0], begins[1], lengths[0], lengths[1]


def crop(random: numpy.random.Generator, height: int, width: int,
         box: Optional[Box] = None, min_area: float = SCALE[0]) -> Place:
    """Return top, left, height and width of a random crop in pixels.

    Args:
        random: the generator to draw from.
        height: of the image.
        width: of the image.
        box: of the object; the crop must overlap it, except for the last of ten attempts.
        min_area: least share of the image's area that the crop takes.
    """
    found: Optional[Place] = None
    for _ in range(ATTEMPTS):
        area = height * width * random.uniform(min_area, SCALE[1])
        ratio = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if not (0 < w <= width and 0 < h <= height):
            continue
        found = (int(random.integers(0, height - h + 1)), int(random.integers(0, width - w + 1)),
                 h, w)
        if box is None or overlap(found, box, height, width) >= LEAST_OVERLAP:
            return found
    if found is not None:
        return found
    # the image is longer than any crop may be: take the middle
    w = min(width, round(height * RATIO[1]))
    h = min(height, round(width / RATIO[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def padded_crop(random: numpy.random.Generator, pixels: Pixels, native_size: int,
                input_size: int) -> Pixels:
    """Return a random part of an image with a black margin, of the size of the image itself.

    Args:
        random: the generator to draw from.
        pixels: uint8, `(height, width, 3)`.
        native_size: of the dataset's images; the margin is an eighth of it.
        input_size: height and width of the result, which is resized if the image is not so large.
    """
    margin = round(PADDING * native_size)
    height, width = pixels.shape[:2]
    top, left = (int(start) for start in random.integers(0, 2 * margin + 1, 2))
    padded = numpy.pad(pixels, ((margin, margin), (margin, margin), (0, 0)))
    return whole_at(padded[top:top + height, left:left + width], input_size)


def overlap(place: Place, box: Box, height: int, width: int) -> float:
    """Return the share of a crop that lies in a relative box."""
    top, left, h, w = place
    across = min(left + w, box[2] * width) - max(left, box[0] * width)
    down = min(top + h, box[3] * height) - max(top, box[1] * height)
    return max(0.0, across) * max(0.0, down) / (h * w)


def rand_augment(random: numpy.random.Generator, pixels: Pixels, operations: int,
                 magnitude: int) -> Pixels:
    """Apply random operations of RandAugment to an image (Cubuk et al., 2020).

    The operations and their ranges are those of the paper's AutoAugment space; empty areas are
    filled with grey.

    Args:
        random: the generator to draw from.
        pixels: uint8, `(height, width, 3)`.
        operations: how many, drawn with replacement.
        magnitude: 0 to 30.
    """
    if not operations:
        return pixels
    picture = to_pillow(pixels)
    for _ in range(operations):
        operation = _OPERATIONS[int(random.integers(len(_OPERATIONS)))]
        picture = operation(picture, magnitude / 30, 1 if random.random() < 0.5 else -1)
    return numpy.array(picture)


_GREY = (128, 128, 128)


def _sheared(picture: Any, x: float, y: float, right: float = 0, down: float = 0) -> Any:
    from PIL import Image

    affine = Image.AFFINE  # type: ignore[attr-defined]
    return picture.transform(picture.size, affine, (1, x, right, y, 1, down), fillcolor=_GREY)


def _enhanced(kind: str) -> Callable[[Any, float, int], Any]:
    def change(picture: Any, strength: float, sign: int) -> Any:
        from PIL import ImageEnhance

        return getattr(ImageEnhance, kind)(picture).enhance(1 + 0.9 * strength * sign)

    return change


def _of_image_ops(name: str, *arguments: Callable[[float], int]) -> Callable[[Any, float, int],
                                                                             Any]:
    def change(picture: Any, strength: float, sign: int) -> Any:  # noqa: ARG001
        from PIL import ImageOps

        return getattr(ImageOps, name)(picture, *(value(strength) for value in arguments))

    return change


_OPERATIONS: List[Callable[[Any, float, int], Any]] = [
    lambda picture, *_: picture,
    lambda picture, strength, sign: picture.rotate(30 * strength * sign, fillcolor=_GREY),
    lambda picture, strength, sign: _sheared(picture, 0.3 * strength * sign, 0),
    lambda picture, strength, sign: _sheared(picture, 0, 0.3 * strength * sign),
    lambda picture, strength, sign: _sheared(
        picture, 0, 0, right=0.45 * strength * sign * picture.size[0]),
    lambda picture, strength, sign: _sheared(
        picture, 0, 0, down=0.45 * strength * sign * picture.size[1]),
    _enhanced("Brightness"), _enhanced("Color"), _enhanced("Contrast"), _enhanced("Sharpness"),
    _of_image_ops("autocontrast"), _of_image_ops("equalize"),
    _of_image_ops("posterize", lambda strength: 8 - round(4 * strength)),
    _of_image_ops("solarize", lambda strength: round(256 * (1 - strength))),
]
