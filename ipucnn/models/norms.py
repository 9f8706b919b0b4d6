"""What a norm-layer plugin is told; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class NormOptions:
    """What the user wants of the norm layers; None keeps what the model was designed with.

    Attributes:
        groups: of group normalisation.
        eps: added to the variance.
        momentum: weight of a new batch in the running statistics.
    """

    groups: int = 32
    eps: Optional[float] = None
    momentum: Optional[float] = None


@dataclass(frozen=True)
class NormSite:
    """A batch norm of the model that is to be replaced.

    Attributes:
        name: the layer's path, `layer1/0/bn1`.
        channels: of its input.
        eps: the layer's own.
        momentum: the layer's own; None when it averages over all batches alike.
        affine: it has a weight and a bias per channel.
        running_statistics: it keeps a running mean and variance.
        common_channels: greatest common divisor of the channels of all of the model's norm layers.
    """

    name: str
    channels: int
    eps: float
    momentum: Optional[float]
    affine: bool
    running_statistics: bool = True
    common_channels: int = 1
