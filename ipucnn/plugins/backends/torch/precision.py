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
from torch.torch_version import TorchVersion

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
        context: ContextManager[Any] = torch.autocast(
            self._device.place.type, dtype=self._device.half)
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


class CudaSettings:
    """The settings of the process for a session on a CUDA device.

    TensorFloat-32 is disabled in single precision, because it has only 10 bits of fraction.
    Trainings use cuDNN's deterministic algorithms, so that they can be repeated; inference lets
    cuDNN find the fastest algorithms.

    Args:
        device: where a session computes.
        half: whether it computes in half precision.
        training: whether it trains.
    """

    def __init__(self, device: Device, half: bool, training: bool) -> None:
        self._before: List[Any] = []
        if device.place.type != "cuda":
            return
        self._set(torch.backends.cudnn, "deterministic", training)
        self._set(torch.backends.cudnn, "benchmark", not training)
        if half:
            return
        for owner in (torch.backends.cuda.matmul, torch.backends.cudnn):
            # the interface of torch 2.9 and newer, which refuses a mixture with the older one
            if TorchVersion(torch.__version__) >= "2.9":
                self._set(owner, "fp32_precision", "ieee")
            else:
                self._set(owner, "allow_tf32", False)

    def _set(self, owner: Any, name: str, value: Any) -> None:
        self._before.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    def restore(self) -> None:
        """Restore the previous values."""
        for owner, name, value in reversed(self._before):
            setattr(owner, name, value)
        self._before = []
