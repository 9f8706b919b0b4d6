"""Transforms applied to images before they are stored: `Resize(256)`, `CenterCrop(224)`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

from ipucnn.core.errors import UsageError

if TYPE_CHECKING:
    from ipucnn.data import Box
    from ipucnn.data.resize import Pixels

_STEP = re.compile(r"(Resize|CenterCrop)\(([0-9]{1,5})\)")


@dataclass(frozen=True)
class Step:
    """One transform of an image.

    Attributes:
        kind: `Resize`, of the shorter side, or `CenterCrop`, of a square.
        size: pixels.
    """

    kind: str
    size: int

    def __str__(self) -> str:
        return f"{self.kind}({self.size})"

    def apply(self, pixels: Pixels, box: Optional[Box]) -> Tuple[Pixels, Optional[Box]]:
        """Return the transformed image and box; the box is None where it was cropped away.

        Args:
            pixels: uint8, `(height, width, 3)`.
            box: of its object.
        """
        from ipucnn.data.resize import center_crop, resized

        if self.kind == "Resize":
            return resized(pixels, self.size), box
        height, width = pixels.shape[:2]
        return (center_crop(_at_least(pixels, self.size), self.size),
                box and self._cropped(box, height, width))

    def _cropped(self, box: Box, height: int, width: int) -> Optional[Box]:
        def side(begin: float, end: float, length: int) -> Tuple[float, float]:
            start = (round((length - self.size) / 2) if length > self.size
                     else -((self.size - length) // 2))
            first, last = ((place * length - start) / self.size for place in (begin, end))
            return min(max(first, 0.0), 1.0), min(max(last, 0.0), 1.0)

        (left, right), (top, bottom) = side(box[0], box[2], width), side(box[1], box[3], height)
        return (left, top, right, bottom) if left < right and top < bottom else None


def _at_least(pixels: Pixels, size: int) -> Pixels:
    """Pad an image with black where a side is shorter than `size`."""
    import numpy

    missing = [max(0, size - side) for side in pixels.shape[:2]]
    if not any(missing):
        return pixels
    return numpy.pad(pixels, [*((less // 2, less - less // 2) for less in missing), (0, 0)])


def parse(texts: Sequence[str], flag: str) -> Tuple[Step, ...]:
    """Return the steps that an option names.

    Args:
        texts: its values; one may hold several steps with spaces between them.
        flag: the option, for the message.

    Raises:
        UsageError: one is not a valid step.
    """
    steps: List[Step] = []
    for text in (word for words in texts for word in words.split()):
        found = _STEP.fullmatch(text)
        if not found or int(found.group(2)) < 1:
            raise UsageError(f"option '{flag}': {text!r} is not a step",
                             "steps: 'Resize(256)', 'CenterCrop(224)', with any number of pixels")
        steps.append(Step(found.group(1), int(found.group(2))))
    return tuple(steps)
