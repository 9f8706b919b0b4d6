"""Replicas on one device: shared weights, separate buffers."""

from __future__ import annotations

from typing import Any, Dict, List, Sequence, Tuple

import torch
from torch import nn

Buffers = Dict[str, torch.Tensor]


class Replicas:
    """The buffers (running statistics) of every replica; the model holds those of one."""

    def __init__(self, model: nn.Module, count: int) -> None:
        # buffers such as normalisation constants, which are not saved, are the same for all
        saved = set(model.state_dict())
        self._places: List[Tuple[str, Dict[str, Any], str]] = [
            (f"{path}.{name}" if path else name, module._buffers, name)
            for path, module in model.named_modules() for name, value in module._buffers.items()
            if value is not None and (f"{path}.{name}" if path else name) in saved]
        first = {key: home[name] for key, home, name in self._places}
        self._all: List[Buffers] = [first] + [
            {key: value.clone() for key, value in first.items()} for _ in range(count - 1)]

    def enter(self, replica: int) -> None:
        """Load a replica's buffers into the model."""
        if len(self._all) > 1:
            for key, home, name in self._places:
                home[name] = self._all[replica][key]

    def snapshot(self) -> List[Buffers]:
        """Return copies of all buffers."""
        return [{key: value.detach().clone() for key, value in buffers.items()}
                for buffers in self._all]

    @torch.no_grad()
    def put(self, values: Sequence[Buffers]) -> None:
        """Set all buffers; replicas without values get those of the first."""
        for number, buffers in enumerate(self._all):
            given = values[number] if number < len(values) else values[0]
            for key, value in buffers.items():
                value.copy_(given[key])


def on_host(value: Any) -> Any:
    """Return nested plain containers with their tensors copied to the host."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: on_host(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(on_host(item) for item in value)
    return value
