"""Softmax cross-entropy, with label smoothing and class weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, List, Optional, Sequence, Tuple

from ipucnn.core.execution.losses import CrossEntropyForm, Loss, one_per_image
from ipucnn.core.execution.mixing import Mixing, mixed_labels
from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import LossSpec
from ipucnn.plugins.losses._class_weights import BALANCED, WithClassWeights, weights_like

if TYPE_CHECKING:
    import torch

    Targets = Sequence[Tuple[torch.Tensor, Optional[torch.Tensor]]]


@dataclass(frozen=True)
class CrossEntropyOptions:
    """Options of `cross-entropy`."""

    label_smoothing: float = option(0.0, "Share of a label that is spread over all classes.",
                                    minimum=0.0, maximum=1.0)
    class_weights: Tuple[float, ...] = option(
        (), "Weight of each class in the loss, in the order of the classes, or 'balanced': larger "
        "for rare ones.", words=(BALANCED,), exclusive_minimum=0.0)


class CrossEntropy(WithClassWeights, Loss):
    """The mean of ``-log softmax(logits)[label]``; `CrossEntropyForm` states the whole formula.

    Label smoothing is that of "Rethinking the Inception Architecture" (Szegedy et al., 2016),
    section 7. With class weights the loss of a micro-batch is the weighted mean, as
    `torch.nn.functional.cross_entropy` defines it; the weight of a mixed image is the mean of its
    labels' weights by their shares.
    """

    name = "cross-entropy"

    def __init__(self, options: Optional[CrossEntropyOptions] = None) -> None:
        self._options = options or CrossEntropyOptions()

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor,
                 mixing: Optional[Mixing] = None, micro_batch: int = 0) -> torch.Tensor:
        """Return the mean loss; see `Loss.__call__`."""
        from torch.nn import functional

        log_p = functional.log_softmax(logits.float(), dim=1)
        targets = mixed_labels(one_per_image(self, labels), mixing, micro_batch)
        if self._options.class_weights:
            return self._weighted(log_p, targets, micro_batch or len(labels))
        terms = []
        for target, share in targets:
            picked = functional.nll_loss(log_p, target, reduction="none")
            terms.append(picked if share is None else share * picked)
        s = self._options.label_smoothing
        loss = sum(terms[1:], terms[0]).mean()
        return loss if not s else (1 - s) * loss - s * log_p.mean()

    def _weighted(self, log_p: torch.Tensor, targets: Targets, micro_batch: int) -> torch.Tensor:
        from torch.nn import functional

        weights = weights_like(self._options.class_weights, log_p)
        s = self._options.label_smoothing
        losses, totals = [], []
        for target, share in targets:
            weight = weights[target] if share is None else share * weights[target]
            # IPUs do not support the weights of nll_loss
            losses.append(weight * functional.nll_loss(log_p, target, reduction="none"))
            totals.append(weight)
        loss, total = sum(losses[1:], losses[0]), sum(totals[1:], totals[0])
        if s:
            loss = (1 - s) * loss - s / log_p.shape[1] * (log_p * weights).sum(1)
        return (loss.view(-1, micro_batch).sum(1) / total.view(-1, micro_batch).sum(1)).mean()

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> Tuple[float, float]:
        """Return the weighted sum of the losses of images, and the sum of their weights.

        Label smoothing is not applied, because it is for training only.
        """
        from torch.nn import functional

        log_p = functional.log_softmax(logits.double(), dim=1)
        weights = log_p.new_tensor(self._options.class_weights or (1.0,) * log_p.shape[1])
        loss = functional.nll_loss(log_p, one_per_image(self, labels), weights, reduction="sum")
        return float(loss), float(weights[labels].sum())

    def device_form(self) -> CrossEntropyForm:
        """Return the parameters of the loss."""
        return CrossEntropyForm(self._options.label_smoothing, self._options.class_weights)


@hookimpl
def ipucnn_losses() -> List[LossSpec]:
    """Return the record of the loss `cross-entropy`."""
    return [LossSpec(name="cross-entropy", aliases=("ce",),
                     summary="softmax cross-entropy, with label smoothing and class weights",
                     target="ipucnn.plugins.losses.cross_entropy:CrossEntropy",
                     options=CrossEntropyOptions,
                     formula="(1 - s) mean(-log p[y]) + s mean(-log p)")]
