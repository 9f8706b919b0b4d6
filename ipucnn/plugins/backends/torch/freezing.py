"""Freezes all of a model but its output layer, for some epochs."""

from __future__ import annotations

from torch import nn


class Body:
    """The layers before the output layer."""

    def __init__(self, model: nn.Module, head: str) -> None:
        """Find the layers of `model` outside of the module `head`, except frozen ones."""
        self._parameters = [parameter for name, parameter in model.named_parameters()
                            if parameter.requires_grad and not name.startswith(head + ".")]
        self._layers = [module for path, module in model.named_modules()
                        if path and not f"{head}.".startswith(f"{path}.")
                        and not path.startswith(f"{head}.")]

        self._frozen = False

    def freeze(self, frozen: bool) -> bool:
        """Freeze or unfreeze the layers; optimizers skip parameters without a gradient.

        Returns:
            Whether the set of parameters that require gradients has changed.
        """
        changed, self._frozen = frozen != self._frozen, frozen
        for parameter in self._parameters:
            parameter.requires_grad_(not frozen)
        for layer in self._layers:
            layer.train(not frozen)
        return changed
