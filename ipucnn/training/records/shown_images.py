"""Augmented training images, for loggers."""

from __future__ import annotations

from typing import Any, List, Sequence, Tuple

from ipucnn.core.execution.training_session import TrainingBatch

MOST = 16
"""Number of images."""


def shown(batch: TrainingBatch, names: Sequence[str]) -> Tuple[Any, List[str]]:
    """Return the first images of a batch, uint8 `(n, height, width, 3)`, and their classes.

    Images that the host has normalised are scaled to the range of uint8, each one separately.
    """
    import torch

    if batch.images is None:
        return torch.zeros((0, 1, 1, 3), dtype=torch.uint8).numpy(), []
    images = batch.images[:MOST]
    if images.dtype != torch.uint8:
        images = images.float()
        least = images.amin(dim=(1, 2, 3), keepdim=True)
        span = (images.amax(dim=(1, 2, 3), keepdim=True) - least).clamp_min(1e-6)
        images = ((images - least) / span * 255).round().to(torch.uint8)
    pixels = images[:, :3].permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return pixels, [_named(label, names) for label in _labels(batch)]


def _labels(batch: TrainingBatch) -> List[Any]:
    return [] if batch.labels is None else list(batch.labels[:MOST])


def _named(label: Any, names: Sequence[str]) -> str:
    """Return the name of a class, or the names of several that are marked in a row."""
    found = [int(label)] if label.dim() == 0 else label.nonzero().flatten().tolist()
    return ", ".join(names[one] if 0 <= one < len(names) else str(one) for one in found)
