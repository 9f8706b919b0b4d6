"""Binary cross-entropy per class, for images with several labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, List, Optional, Tuple

from ipucnn.core.execution.losses import PerImageLoss
from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import LossSpec
from ipucnn.plugins.losses._class_weights import BALANCED, WithClassWeights, weights_like

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BinaryCrossEntropyOptions:
    """Options of `binary-cross-entropy`."""

    label_smoothing: float = option(0.0, "Share of a label that is spread over all classes.",
                                    minimum=0.0, maximum=1.0)
    class_weights: Tuple[float, ...] = option(
        (), "Weight of the positive label of each class ('pos_weight' in torch), in the order of "
        "the classes, or 'balanced': larger for rare classes.", words=(BALANCED,),
        exclusive_minimum=0.0)


class BinaryCrossEntropy(WithClassWeights, PerImageLoss):
    """The mean over images and classes of ``-w t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x))``.

    As `torch.nn.functional.binary_cross_entropy_with_logits` with `pos_weight` w, which is 1
    without class weights. The target t is 1 for the classes of an image and 0 for the others; with
    label smoothing s and C classes it is ``(1 - s) t + s / C``, as in "ResNet strikes back"
    (Wightman et al., 2021) and its implementation in timm.
    """

    name = "binary-cross-entropy"

    def __init__(self, options: Optional[BinaryCrossEntropyOptions] = None) -> None:
        self._options = options or BinaryCrossEntropyOptions()

    def per_image(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of each image; see `PerImageLoss.per_image`."""
        import torch
        from torch.nn import functional

        classes = logits.shape[1]
        if labels.dim() == 1:
            # one_hot needs the labels' values, which a compiled program does not have
            labels = labels[:, None] == torch.arange(classes, device=labels.device)
        s = self._options.label_smoothing
        target = labels.float()
        if s:
            target = (1 - s) * target + s / classes
        weights = self._options.class_weights
        return functional.binary_cross_entropy_with_logits(
            logits, target, pos_weight=weights_like(weights, logits) if weights else None,
            reduction="none").mean(1)

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> Tuple[float, float]:
        """Return the sum of the losses of images, and their number.

        Label smoothing is not applied, because it is for training only.
        """
        if self._options.label_smoothing:
            plain = BinaryCrossEntropy(replace(self._options, label_smoothing=0.0))
            return plain.total(logits, labels)
        return super().total(logits, labels)


@hookimpl
def ipucnn_losses() -> List[LossSpec]:
    """Return the record of the loss `binary-cross-entropy`."""
    return [LossSpec(name="binary-cross-entropy", aliases=("bce",),
                     summary="sigmoid cross-entropy of each class, for several labels per image",
                     target="ipucnn.plugins.losses.binary_cross_entropy:BinaryCrossEntropy",
                     options=BinaryCrossEntropyOptions, multi_label=True,
                     formula="mean(-w t log sigmoid(x) - (1 - t) log(1 - sigmoid(x)))")]
