"""The interface of losses, and descriptions of losses for backends.

A loss plugin returns a `Loss`. A backend that runs or traces torch code calls it; a backend that
builds programs from its own operators requests a description (`Loss.device_form`). Either kind
rejects a loss that it cannot compute before compilation, with `unsupported`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional, Sequence, Tuple

from ipucnn.core.errors import PluginError, UsageError
from ipucnn.core.execution.mixing import Mixing, mixed_labels
from ipucnn.core.names import described

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CrossEntropyForm:
    """Description of softmax cross-entropy by its parameters.

    With log-probabilities ``log p = log_softmax(logits)``, smoothing s, C classes and weights w
    (all 1 when there are none), the loss of a micro-batch with labels y is ::

        ((1 - s) sum_i w[y_i] (-log p_i[y_i]) + s / C sum_i sum_c w[c] (-log p_i[c])) / sum_i w[y_i]

    Source: `torch.nn.functional.cross_entropy` with a `weight` and `label_smoothing`.

    Attributes:
        label_smoothing: s, 0 to 1.
        class_weights: w, one weight per class; empty for none.
    """

    label_smoothing: float = 0.0
    class_weights: Tuple[float, ...] = ()


class Loss(ABC):
    """The function that a training minimises.

    Attributes:
        name: canonical name of its record, for messages.
        traceable: its operations depend on the shapes of its arguments only, not on their values,
            so that a backend can trace it and compile it with the model.
    """

    name: str = ""
    traceable: bool = True

    @abstractmethod
    def __call__(self, logits: torch.Tensor, labels: torch.Tensor,
                 mixing: Optional[Mixing] = None, micro_batch: int = 0) -> torch.Tensor:
        """Return the mean loss of micro-batches: a differentiable float32 scalar.

        The loss of several micro-batches is the mean of their losses, so that a backend may compute
        them one after the other or together. The loss of a mixed image is the sum of its losses
        with the labels of the images that it was mixed from, weighted by their shares
        (`ipucnn.plugin.mixed_labels`); class weights may weight the shares too.

        Args:
            logits: `(n, classes)`, any floating type; converted to float32.
            labels: `(n,)` int64, one class per image; if the record has `multi_label`, also
                `(n, classes)` float, with 1 for each class that an image has and 0 for the others.
            mixing: how the images were mixed within their micro-batches; None if they were not.
            micro_batch: images per micro-batch; all n when 0.
        """

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> Tuple[float, float]:
        """Return the sum of the losses of images, and their number or total weight.

        The quotient of such sums over batches is the loss of a validation: it does not depend on
        the batches. The loss of an image is that of a micro-batch with this image alone.

        Args:
            logits: `(n, classes)`, any floating type.
            labels: as in `__call__`.
        """
        return float(self(logits, labels, None, 1)) * len(logits), float(len(logits))

    def device_form(self) -> Optional[CrossEntropyForm]:
        """Return a complete description of this loss, or None if there is none.

        For backends that build the loss from their own operators.
        """
        return None

    @property
    def needs_counts(self) -> bool:
        """Whether the options depend on the number of images of each class; see `count_classes`."""
        return False

    def count_classes(self, counts: Sequence[int]) -> None:  # noqa: B027 - most need no counts
        """Set the number of training images of each class; called before `check` and other use."""

    def check(self, classes: int) -> None:  # noqa: B027 - most have nothing to check
        """Check the options of the loss against the number of classes of a model.

        Raises:
            UsageError: an option does not match (class weights, for example).
        """


class PerImageLoss(Loss):
    """A loss that is the mean over images; a subclass defines the loss of each image."""

    @abstractmethod
    def per_image(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of each image, float32 `(n,)`.

        Args:
            logits: `(n, classes)`, float32.
            labels: as in `Loss.__call__`.
        """

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor,
                 mixing: Optional[Mixing] = None, micro_batch: int = 0) -> torch.Tensor:
        """Return the mean loss; see `Loss.__call__`."""
        logits = logits.float()
        terms = [self._each(logits, target) if share is None
                 else share * self._each(logits, target)
                 for target, share in mixed_labels(labels, mixing, micro_batch)]
        return sum(terms[1:], terms[0]).mean()

    def total(self, logits: torch.Tensor, labels: torch.Tensor) -> Tuple[float, float]:
        """Return the sum of the losses of images, and their number; see `Loss.total`."""
        return float(self._each(logits.float(), labels).double().sum()), float(len(logits))

    def _each(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return `per_image`; a mean over the images would count as the loss of one image."""
        losses = self.per_image(logits, labels)
        if not hasattr(losses, "dim") or losses.dim() != 1:
            raise PluginError(f"'per_image' of loss {self.name or type(self).__name__!r} returned "
                              f"{described(losses)}, expected a tensor with a number for each "
                              "image")
        return losses


def one_per_image(loss: Loss, labels: torch.Tensor) -> torch.Tensor:
    """Return `labels` if there is one per image, `(n,)`; for single-label losses.

    Raises:
        UsageError: an image may have several labels.
    """
    if labels.dim() != 1:
        raise UsageError(f"loss {loss.name!r} takes one label per image, and these images may have "
                         "several", "'ipucnn list-plugins losses' lists the others")
    return labels


def of_micro_batch(loss: Loss, logits: torch.Tensor, labels: torch.Tensor,
                   mixing: Optional[Mixing], micro_batch: int) -> torch.Tensor:
    """Return the loss of a micro-batch in a training, after a check that it can be minimised.

    Args:
        loss: the loss.
        logits: see `Loss.__call__`.
        labels: likewise.
        mixing: likewise.
        micro_batch: likewise.

    Raises:
        PluginError: it is no scalar, or does not depend on the logits.
    """
    import torch

    value = loss(logits, labels, mixing, micro_batch)
    if not isinstance(value, torch.Tensor) or value.dim():
        shape = f"a tensor of shape {list(value.shape)}" if isinstance(value, torch.Tensor) \
            else f"an object of type {type(value).__name__!r}"
        raise PluginError(f"loss {loss.name!r} returned {shape}, expected the mean over the images "
                          "as a tensor without dimensions")
    if logits.requires_grad and not value.requires_grad:
        raise PluginError(f"loss {loss.name!r} returned a value without a gradient",
                          "compute it from the logits without 'detach', 'item' and numpy")
    return value


def total_of(loss: Loss, logits: torch.Tensor, labels: torch.Tensor) -> Tuple[float, float]:
    """Return `Loss.total`, after a check of its type.

    Raises:
        PluginError: it is no pair of numbers.
    """
    found = loss.total(logits, labels)
    try:
        total, weight = map(float, found)
    except (TypeError, ValueError) as error:
        raise PluginError(f"'total' of loss {loss.name!r} returned {described(found)}, expected "
                          "the sum of the losses of the images and their number") from error
    return total, weight


def unsupported(backend: str, loss: Loss, hint: str) -> UsageError:
    """Return the error for a loss that a backend cannot compute.

    Args:
        backend: name of the backend.
        loss: the loss, or the part of it, that is not supported.
        hint: the supported losses, or an alternative.
    """
    return UsageError(f"backend {backend!r} has no loss {loss.name!r}", hint)
