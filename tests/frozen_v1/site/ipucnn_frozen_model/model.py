"""The network; imported when it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from ipucnn_frozen_model.options import ModelOptions


def build_model(num_classes: int, options: ModelOptions) -> nn.Module:
    """Return a network with random weights.

    It maps normalised images, `(n, 3, size, size)`, to logits, `(n, num_classes)`.
    """
    def block(channels: int, outputs: int) -> nn.Module:
        # '--normlayer' replaces batch norms by the layer that the user selects
        return nn.Sequential(
            nn.Conv2d(channels, outputs, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))

    width = options.frozen_model_width
    return nn.Sequential(
        block(3, width), block(width, 2 * width), block(2 * width, 4 * width),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, num_classes))
