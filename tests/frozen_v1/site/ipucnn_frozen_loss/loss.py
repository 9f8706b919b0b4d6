"""The loss; imported when a training is set up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from ipucnn.plugin import PerImageLoss, one_per_image
from torch.nn import functional

if TYPE_CHECKING:
    from ipucnn_frozen_loss.options import LossOptions


class FrozenLossLoss(PerImageLoss):
    """The mean over images of ``-log softmax(logits / temperature)`` at the label."""

    name = "frozen-loss"

    def __init__(self, options: LossOptions) -> None:
        self._temperature = options.frozen_loss_temperature

    def per_image(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of each image, `(n,)`; logits are float32, `(n, classes)`."""
        one_per_image(self, labels)
        return functional.cross_entropy(logits / self._temperature, labels, reduction="none")
