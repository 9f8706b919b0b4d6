"""Focal loss, which down-weights well-classified images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, List, Optional, Tuple

from ipucnn.core.execution.losses import PerImageLoss, one_per_image
from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import LossSpec
from ipucnn.plugins.losses._class_weights import BALANCED, WithClassWeights, weights_like

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FocalOptions:
    """Options of `focal`."""

    focal_gamma: float = option(
        2.0, "Exponent of the focal loss: with a larger exponent, well-classified images have "
        "less weight; 0 is cross-entropy.", minimum=0.0)
    class_weights: Tuple[float, ...] = option(
        (), "Weight of each class in the loss (alpha in the focal loss), in the order of the "
        "classes, or 'balanced': larger for rare ones.", words=(BALANCED,),
        exclusive_minimum=0.0)


class Focal(WithClassWeights, PerImageLoss):
    """The mean over images of ``-alpha[y] (1 - p[y])^gamma log p[y]``, where p is the softmax.

    Source: "Focal Loss for Dense Object Detection" (Lin et al., 2017), equation 5, for one of
    several classes instead of two. The mean is over images, not by their weights, as published;
    alpha is 1 without class weights.
    """

    name = "focal"

    def __init__(self, options: Optional[FocalOptions] = None) -> None:
        self._options = options or FocalOptions()

    def per_image(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of each image; see `PerImageLoss.per_image`."""
        from torch.nn import functional

        one_per_image(self, labels)
        loss = functional.nll_loss(functional.log_softmax(logits, dim=1), labels, reduction="none")
        gamma = self._options.focal_gamma
        if gamma:
            # 1 - p; expm1 keeps it exact near p = 1, and the bound its gradient finite at p = 1
            loss = (-(-loss).expm1()).clamp(min=1e-12) ** gamma * loss
        weights = self._options.class_weights
        return weights_like(weights, logits)[labels] * loss if weights else loss


@hookimpl
def ipucnn_losses() -> List[LossSpec]:
    """Return the record of the loss `focal`."""
    return [LossSpec(name="focal",
                     summary="cross-entropy with less weight on well-classified images",
                     target="ipucnn.plugins.losses.focal:Focal", options=FocalOptions,
                     formula="mean(-alpha[y] (1 - p[y])^gamma log p[y])")]
