"""Batches as compiled programs take them."""

from __future__ import annotations

import torch


def full_batch(images: torch.Tensor, samples: int, kind: torch.dtype) -> torch.Tensor:
    """Return the batch of a program, whose last images are zero if there are fewer.

    Args:
        images: at most as many as the program takes.
        samples: that the program takes, whose shape is compiled.
        kind: type of its input.
    """
    count = len(images)
    if count > samples:
        raise ValueError(f"{count} images for a program of {samples}")
    batch = images.to(kind).contiguous()
    if count < samples:
        batch = torch.cat([batch, batch.new_zeros((samples - count, *batch.shape[1:]))])
    return batch
