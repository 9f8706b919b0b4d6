"""The moving average of the weights."""

from __future__ import annotations

from typing import Dict, List

import torch
from torch import nn


class MovingAverage:
    """``average <- d average + (1 - d) weights`` after every update, d rising to `decay`.

    ``d = min(decay, (1 + t) / (10 + t))`` after t updates, so that the influence of the initial
    weights decays quickly (the warm-up of TensorFlow's `ExponentialMovingAverage`). Floating
    buffers are averaged too, others copied.

    Attributes:
        updates: updates so far.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.updates = 0
        self._source = model
        self._values = {name: value.detach().clone() for name, value in tensors_of(model).items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the model's weights."""
        d = min(self._decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        averages: List[torch.Tensor] = []
        values: List[torch.Tensor] = []
        for name, value in tensors_of(self._source).items():
            if value.is_floating_point():
                averages.append(self._values[name])
                values.append(value)
            else:
                self._values[name].copy_(value)
        torch._foreach_mul_(averages, d)
        torch._foreach_add_(averages, values, alpha=1 - d)

    def weights(self) -> Dict[str, torch.Tensor]:
        """Return the average by the names of the state dictionary."""
        return self._values

    @torch.no_grad()
    def load(self, updates: int) -> None:
        """Set the average to the model's weights, after this number of updates."""
        self.updates = updates
        for name, value in tensors_of(self._source).items():
            self._values[name].copy_(value)


def tensors_of(model: nn.Module) -> Dict[str, torch.Tensor]:
    """Return parameters and saved buffers, without the hooks of a state dictionary."""
    found: Dict[str, torch.Tensor] = dict(model.named_parameters())
    for path, module in model.named_modules():
        for name, value in module._buffers.items():
            if value is not None and name not in module._non_persistent_buffers_set:
                found[f"{path}.{name}" if path else name] = value
    return found
