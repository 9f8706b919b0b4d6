"""The loss of a training."""

from __future__ import annotations

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.losses import Loss
from ipucnn.core.registry.records import LossSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data import ImageDataset
from ipucnn.training.options.train_options import TrainOptions


def make_loss(options: TrainOptions, registry: Registry) -> Loss:
    """Return the selected loss."""
    spec = registry.get_typed(LossSpec, options.optimisation.loss)
    loss = registry.make_typed(Loss, spec, options=options.plugins.of("loss", spec.name))
    if not loss.name:
        loss.name = spec.name
    return loss


def check_loss(options: TrainOptions, dataset: ImageDataset, registry: Registry,
               hint: str = "") -> None:
    """Raise an error for images with several classes and a loss of one class per image.

    A loss for several classes also supports images with one class.

    Args:
        options: of the training.
        dataset: the images.
        registry: where names are looked up.
        hint: of the error, where another loss cannot be chosen.

    Raises:
        UsageError: names both, and the losses to choose from.
    """
    spec = registry.get_typed(LossSpec, options.optimisation.loss)
    if dataset.multi_label and not spec.multi_label:
        losses = [f"'--loss {name}'" for name in registry.names("loss")
                  if registry.get_typed(LossSpec, name).multi_label]
        raise UsageError(f"images of dataset {options.dataset.data!r} may have several classes, "
                         f"and loss {spec.name!r} takes one per image",
                         hint or f"use {' or '.join(losses)}")
