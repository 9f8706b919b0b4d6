"""What may be done to images before they are stored: `Resize(256)`, `CenterCrop(224)`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

from ipucnn.core.errors import UsageError

if TYPE_CHECKING:
    import torch

    from ipucnn.core.data import Box

_STEP = re.compile(r"(Resize|CenterCrop)\(([0-9]{1,5})\)")


@dataclass(frozen=True)
class Step:
    """One change of an image.

    Attributes:
        kind: `Resize`, of the shorter side, or `CenterCrop`, of a square.
        size: pixels.
    """

    kind: str
    size: int

    def __str__(self) -> str:
        return f"{self.kind}({self.size})"

    def apply(self, image: torch.Tensor,
              box: Optional[Box]) -> Tuple[torch.Tensor, Optional[Box]]:
        """Return the changed image and where its box is then; None where it was cut away.

        Args:
            image: uint8, `(3, height, width)`.
            box: of its object.
        """
        from ipucnn.core.data import images

        if self.kind == "Resize":
            return images.resize(image, self.size), box
        height, width = image.shape[-2:]
        return images.center_crop(image, self.size), box and self._cropped(box, height, width)

    def _cropped(self, box: Box, height: int, width: int) -> Optional[Box]:
        def side(begin: float, end: float, length: int) -> Tuple[float, float]:
            start = round((length - self.size) / 2)
            first, last = ((place * length - start) / self.size for place in (begin, end))
            return min(max(first, 0.0), 1.0), min(max(last, 0.0), 1.0)

        (left, right), (top, bottom) = side(box[0], box[2], width), side(box[1], box[3], height)
        return (left, top, right, bottom) if left < right and top < bottom else None


def parse(texts: Sequence[str], flag: str) -> Tuple[Step, ...]:
    """Return the steps that an option names.

    Args:
        texts: its values; one may hold several steps with spaces between them.
        flag: the option, for the message.

    Raises:
        UsageError: one is no step.
    """
    steps: List[Step] = []
    for text in (word for words in texts for word in words.split()):
        found = _STEP.fullmatch(text)
        if not found or int(found.group(2)) < 1:
            raise UsageError(f"option '{flag}': {text!r} is no step",
                             "steps: 'Resize(256)', 'CenterCrop(224)', with any number of pixels")
        steps.append(Step(found.group(1), int(found.group(2))))
    return tuple(steps)
