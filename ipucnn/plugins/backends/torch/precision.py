"""Precision pairs in training: the types of computation and of weights.

Weights are always stored in single precision, so that checkpoints match every precision. 16.16
rounds them to half after every update; 16.32 computes with rounded weights and updates unrounded
ones.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, ContextManager, List

import torch
from torch import nn

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.plugins.backends.torch.devices import Device


class Precision:
    """The precision of one training session."""

    def __init__(self, model: nn.Module, plan: ExecutionPlan, device: Device) -> None:
        self._device = device
        self._autocast = plan.half and not device.emulates_half
        norms = plan.full_precision_norm
        self._rounded: List[torch.Tensor] = [
            parameter for module in model.modules()
            if not (norms and isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)))
            for parameter in module.parameters(recurse=False)]
        self._rounds_updates = plan.precision == "16.16"
        # autocast rounds the weights itself
        self._swaps = plan.precision == "16.32" and device.emulates_half
        self._masters: List[torch.Tensor] = []
        self._halves: List[torch.Tensor] = []
        self.name = str(device.half_arithmetic if plan.half else torch.float32).replace(
            "torch.", "")

    def compute(self) -> ContextManager[Any]:
        """Return the context of the forward pass."""
        if not self._autocast:
            return nullcontext()
        # torch keeps the rounded weights until the outermost context of the thread ends; within a
        # context of the caller, all updates would be computed with those of the first
        context: ContextManager[Any] = torch.autocast(
            self._device.place.type, dtype=self._device.half, cache_enabled=False)
        return context

    @torch.no_grad()
    def begin_update(self) -> None:
        """Set the weights to those used in computation."""
        if self._swaps:
            self._masters = [parameter.detach().clone() for parameter in self._rounded]
            self._round(self._rounded)

    @torch.no_grad()
    def before_optimizer(self) -> None:
        """Set the weights to those that are updated."""
        if self._swaps and self._masters:
            for parameter, master in zip(self._rounded, self._masters):
                parameter.copy_(master)
            self._masters = []

    @torch.no_grad()
    def end_update(self) -> None:
        """Round the weights to their precision."""
        if self._rounds_updates:
            self._round(self._rounded)

    def _round(self, tensors: List[torch.Tensor]) -> None:
        if not tensors or not hasattr(torch, "_foreach_copy_"):  # torch 2.0
            for tensor in tensors:
                tensor.copy_(tensor.to(self._device.half).to(tensor.dtype))
            return
        # two calls for all tensors: a GPU is idle while hundreds of calls are made one by one
        if not self._halves:
            self._halves = [torch.empty_like(tensor, dtype=self._device.half) for tensor in tensors]
        torch._foreach_copy_(self._halves, tensors)
        torch._foreach_copy_(tensors, self._halves)
