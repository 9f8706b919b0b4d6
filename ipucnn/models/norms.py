"""Describes the norm layer that a norm-layer plugin replaces; does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class NormSite:
    """A batch norm of the model that is replaced.

    Attributes:
        name: the layer's path, `layer1/0/bn1`.
        channels: number of input channels.
        eps: epsilon of the layer.
        momentum: momentum of the layer; None for a cumulative average over all batches.
        affine: whether it has a weight and a bias per channel.
        running_statistics: whether it has a running mean and variance.
        common_channels: greatest common divisor of the channels of all of the model's norm layers.
    """

    name: str
    channels: int
    eps: float
    momentum: Optional[float]
    affine: bool
    running_statistics: bool = True
    common_channels: int = 1
