"""Draws the images of `--data shapes`.

An image is one shape on a noisy gradient; colours, position, size and rotation are random, so that
only the outline determines the class. It depends only on its seed, its index and its size.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

import numpy
from PIL import Image, ImageDraw

from ipucnn.data import DatasetRequest, ImageDataset, check_classes

if TYPE_CHECKING:
    import torch

DEFAULT_LENGTH = 1024

_OVERSAMPLING = 2  # smooths outlines

Points = List[Tuple[float, float]]


def _polygon(corners: int, radius: float = 1.0, centre: float = 0.0) -> Points:
    turns = [2 * math.pi * corner / corners for corner in range(corners)]
    return [(centre + radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]


def _box(width: float, height: float) -> Points:
    return [(-width, -height), (width, -height), (width, height), (-width, height)]


def _star() -> Points:
    return [point for outer, inner in zip(_polygon(10)[::2], _polygon(10, 0.4)[1::2])
            for point in (outer, inner)]


def _cross(arm: float = 0.28) -> Points:
    quarter = [(arm, arm), (arm, 0.96), (-arm, 0.96)]
    result: Points = []
    for _ in range(4):
        result += quarter
        quarter = [(-y, x) for x, y in quarter]
    return result


_ROUND = 64

# outline and hole of each class within the unit circle; sorted, as the folders of classes are
_SHAPES: Dict[str, Tuple[Points, Optional[Points]]] = {
    "bar": (_box(0.97, 0.22), None),
    "circle": (_polygon(_ROUND), None),
    "crescent": (_polygon(_ROUND), _polygon(_ROUND, 0.85, centre=0.45)),
    "cross": (_cross(), None),
    "ring": (_polygon(_ROUND), _polygon(_ROUND, 0.6)),
    "square": (_polygon(4), None),
    "star": (_star(), None),
    "triangle": (_polygon(3), None),
}
CLASSES = tuple(_SHAPES)


class Shapes(ImageDataset):
    """Drawn shapes; the classes alternate, so that any 8 consecutive images have one of each.

    Args:
        length: number of images.
        size: height and width in pixels.
        seed: of the drawing.
        validation: draw images different from the training images.
    """

    class_names = CLASSES
    ready = True

    def __init__(self, length: int, size: int, seed: int, validation: bool = False) -> None:
        self._length = length
        self._size = size
        self._seed = (seed, 1) if validation else (seed,)

    def __len__(self) -> int:
        return self._length

    def image(self, index: int) -> torch.Tensor:
        """Draw image `index`; see `ImageDataset.image`."""
        import torch

        random = numpy.random.default_rng((*self._seed, index))
        background, colour = _background(random, self._size)
        share = _mask(random, CLASSES[self.label(index)], self._size)[:, :, None]
        pixels = background + (colour - background) * share
        return torch.from_numpy(pixels.clip(0, 255).astype(numpy.uint8)).permute(2, 0, 1)

    def name(self, index: int) -> str:
        """Return `shapes/<index>`."""
        return f"shapes/{index}"

    def label(self, index: int) -> int:
        """Return the class of image `index`."""
        return index % len(CLASSES)


def _mask(random: numpy.random.Generator, shape: str, size: int) -> Any:
    """Return how much of each pixel the shape covers, 0 to 1, `(size, size)`."""
    canvas_size = size * _OVERSAMPLING
    radius = random.uniform(0.25, 0.45)
    x, y = random.uniform(radius, 1 - radius, 2)
    turn = random.uniform(0, 2 * math.pi)
    cosine, sine = radius * math.cos(turn), radius * math.sin(turn)
    canvas = Image.new("L", (canvas_size, canvas_size))
    draw = ImageDraw.Draw(canvas)
    for points, fill in zip(_SHAPES[shape], (255, 0)):
        if points:
            draw.polygon([((x + px * cosine - py * sine) * canvas_size,
                           (y + px * sine + py * cosine) * canvas_size)
                          for px, py in points], fill=fill)
    return numpy.asarray(canvas.reduce(_OVERSAMPLING), dtype=numpy.float32) / 255


def _background(random: numpy.random.Generator, size: int) -> Tuple[Any, Any]:
    """Return a noisy gradient `(size, size, 3)` and a colour `(3,)` that stands out from it."""
    middle = random.uniform(40, 215, 3).astype(numpy.float32)
    # differs by half the range in every channel
    contrast = random.uniform(90, 150, 3).astype(numpy.float32)
    colour = numpy.where(middle > 127, middle - contrast, middle + contrast)
    slope = random.uniform(-25, 25, (2, 1, 1, 3)).astype(numpy.float32)
    across = numpy.linspace(-1, 1, size, dtype=numpy.float32)
    noise = random.integers(0, 40, (size, size, 3), dtype=numpy.uint8)
    gradient = slope[0] * across[None, :, None] + slope[1] * across[:, None, None]
    return middle + gradient + noise - 20, colour


def make(request: DatasetRequest) -> ImageDataset:
    """Return shapes of the model's input size.

    Raises:
        DataError: the model has fewer outputs than there are shapes.
    """
    check_classes("'shapes'", CLASSES, request.num_classes)
    length = DEFAULT_LENGTH if request.length is None else request.length
    shapes = Shapes(length, request.input_size, request.seed, request.split == "validation")
    shapes.split = request.split or ""
    return shapes
