"""Mixup and cutmix: images of a micro-batch mixed with each other.

Sources: "mixup" (Zhang et al., 2018), "CutMix" (Yun et al., 2019). What is drawn depends on the
seed, the epoch and the samples only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Sequence

import numpy
import torch  # noqa: TID253

_MIXUP, _CUTMIX = 1, 2  # keep the two streams of random numbers apart
_LEAST = 1e-5


@dataclass(frozen=True)
class MixOptions:
    """How images are mixed.

    Attributes:
        mixup_alpha: of Beta(alpha, alpha); 0 mixes none.
        cutmix_low, cutmix_high: range of the share of an image that cutmix keeps; both 0 or both
            1 switch it off.
        cutmix_disable_prob: probability that a micro-batch is not cut.
    """

    mixup_alpha: float = 0.0
    cutmix_low: float = 0.0
    cutmix_high: float = 0.0
    cutmix_disable_prob: float = 0.0

    @property
    def cuts(self) -> bool:
        """Whether cutmix is on."""
        return (self.cutmix_low, self.cutmix_high) not in ((0.0, 0.0), (1.0, 1.0))

    @property
    def enabled(self) -> bool:
        """Whether anything is mixed."""
        return self.mixup_alpha > 0 or self.cuts


@dataclass(frozen=True)
class Mixing:
    """How the images of some micro-batches of B are mixed.

    Attributes:
        coefficients: share of each image's own pixels in mixup, `(n,)`, float32, 0.5 to 1; the
            rest is of the image before it in the micro-batch. None without mixup.
        boxes: part of the images that cutmix takes from the second image before, one for each
            micro-batch: top, left, bottom, right in pixels, `(n / B, 4)`. None without cutmix.
        kept: share of an image outside its box, `(n / B,)`, float32.
    """

    coefficients: Optional[torch.Tensor] = None
    boxes: Optional[torch.Tensor] = None
    kept: Optional[torch.Tensor] = None

    def part(self, first: int, count: int, micro_batch: int) -> Mixing:
        """Return the mixing of `count` micro-batches from number `first` on."""
        last = first + count
        return Mixing(
            None if self.coefficients is None
            else self.coefficients[first * micro_batch:last * micro_batch],
            None if self.boxes is None else self.boxes[first:last],
            None if self.kept is None else self.kept[first:last])


def draw(options: MixOptions, seed: int, epoch: int, indices: Sequence[int], micro_batch: int,
         size: int) -> Mixing:
    """Draw how a combined batch is mixed.

    Args:
        options: what is mixed.
        seed: of the training.
        epoch: from 0.
        indices: the samples, in their order.
        micro_batch: B.
        size: height and width of the images in pixels.
    """
    coefficients = boxes = kept = None
    if options.mixup_alpha:
        drawn = numpy.array([numpy.random.default_rng((seed, epoch, _MIXUP, index)).beta(
            options.mixup_alpha, options.mixup_alpha) for index in indices])
        drawn = drawn.clip(_LEAST, 1 - _LEAST)
        coefficients = torch.from_numpy(numpy.maximum(drawn, 1 - drawn).astype(numpy.float32))
    if options.cuts:
        boxes = torch.tensor([_box(options, seed, epoch, index, size)
                              for index in indices[::micro_batch]])
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        kept = 1 - area.float() / size**2
    return Mixing(coefficients, boxes, kept)


def mix_images(images: torch.Tensor, mixing: Mixing, micro_batch: int) -> torch.Tensor:
    """Return the mixed images.

    Args:
        images: `(n, c, height, width)`, floating; left as they are.
        mixing: of these micro-batches.
        micro_batch: B.
    """
    rows = images.view(-1, micro_batch, *images.shape[1:])
    if mixing.coefficients is not None:
        c = mixing.coefficients.to(images).view(-1, micro_batch, 1, 1, 1)
        rows = c * rows + (1 - c) * rows.roll(1, 1)
    if mixing.boxes is not None:
        inside = _inside(mixing.boxes.to(images.device), *images.shape[2:])
        rows = torch.where(inside, rows.roll(2, 1), rows)
    return rows.reshape(images.shape)


def _inside(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return which pixels are in the boxes, `(n, 1, 1, height, width)`.

    By comparison, not by slices: a device that compiles the program cannot read their values.
    """
    top, left, bottom, right = (edge.view(-1, 1, 1, 1, 1) for edge in boxes.unbind(1))
    y = torch.arange(height, device=boxes.device).view(1, 1, 1, height, 1)
    x = torch.arange(width, device=boxes.device).view(1, 1, 1, 1, width)
    return (y >= top) & (y < bottom) & (x >= left) & (x < right)


def _box(options: MixOptions, seed: int, epoch: int, index: int, size: int) -> Sequence[int]:
    random = numpy.random.default_rng((seed, epoch, _CUTMIX, index))
    kept = random.uniform(options.cutmix_low, options.cutmix_high)
    if random.random() < options.cutmix_disable_prob:
        kept = 1.0
    side = size * (1 - kept) ** 0.5
    top, left = random.uniform(0, size - side, 2)
    return [round(top), round(left), round(top + side), round(left + side)]
