"""Mixup and CutMix: draws the mixing parameters of a batch and mixes its images.

The draw depends on the seed, the epoch and the samples only. `ipucnn.core.execution.mixing` is the
interface that backends and losses see.
"""

from __future__ import annotations

from typing import Sequence

import numpy
import torch

from ipucnn.core.execution.mixing import Mixing, MixOptions

_MIXUP, _CUTMIX = 1, 2  # keep the two streams of random numbers apart
_LEAST = 1e-5


def draw(options: MixOptions, seed: int, epoch: int, indices: Sequence[int], micro_batch: int,
         size: int) -> Mixing:
    """Draw the mixing parameters of a combined batch.

    Args:
        options: of mixing.
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
        images: `(n, c, height, width)`, floating; not modified.
        mixing: parameters of these micro-batches.
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
    """Return a mask of the pixels inside the boxes, `(n, 1, 1, height, width)`.

    It compares coordinates instead of slicing: a compiled program cannot read the boxes' values.
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
