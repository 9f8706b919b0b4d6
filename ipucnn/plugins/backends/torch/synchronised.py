"""Batch norm with the statistics of all replicas, for `--sync-batchnorm`.

Each process sends mean and variance of its samples, whose number is the same in each (Chan et al.,
"Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979). torch's own
SyncBatchNorm computes on GPUs only.
"""

from __future__ import annotations

from typing import Any, Tuple

import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ipucnn.core.errors import UsageError


def synchronise(model: nn.Module, group: Any, count: int) -> int:
    """Make the batch norms of a model use the statistics of all processes in training.

    Args:
        model: the `forward` of its norm layers is replaced; names and parameters stay.
        group: of torch.distributed; None is that of all processes.
        count: number of processes; with one the layers stay as they are.

    Returns:
        The number of layers.

    Raises:
        UsageError: the model has no batch norm.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        raise UsageError("'--sync-batchnorm' has no effect: the model has no batch norm",
                         "leave it out")
    for norm in norms if count > 1 else ():
        replaced: Any = _Synchronised(norm, norm.forward, group)
        norm.forward = replaced  # type: ignore[method-assign]
    return len(norms)


class _Synchronised:
    """Replaces the `forward` of a batch norm."""

    def __init__(self, norm: _BatchNorm, forward: Any, group: Any) -> None:
        self._norm, self._forward, self._group = norm, forward, group

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        norm = self._norm
        if not norm.training:
            own: torch.Tensor = self._forward(images)
            return own
        values = images.float()
        axes = [axis for axis in range(values.dim()) if axis != 1]
        shape = [1, -1, *[1] * (values.dim() - 2)]
        own_mean = values.mean(axes)
        own_variance = (values - own_mean.view(shape)).square().mean(axes)
        every = _Gathered.apply(torch.stack([own_mean, own_variance]), self._group)
        mean = every[:, 0].mean(0)
        variance = every[:, 1].mean(0) + (every[:, 0] - mean).square().mean(0)
        self._record(mean.detach(), variance.detach(),
                     every.shape[0] * values.numel() // values.shape[1])
        scale = torch.rsqrt(variance + norm.eps)
        result: torch.Tensor = (values - mean.view(shape)) * scale.view(shape)
        if norm.weight is not None:
            result = result * norm.weight.float().view(shape)
        if norm.bias is not None:
            result = result + norm.bias.float().view(shape)
        return result.to(images.dtype)

    @torch.no_grad()
    def _record(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        """Update the running statistics, as the layer itself does."""
        norm = self._norm
        if norm.running_mean is None or norm.running_var is None:
            return
        factor = norm.momentum
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if factor is None:
                factor = 1 / float(norm.num_batches_tracked)
        assert factor is not None
        unbiased = variance * (count / max(1, count - 1))
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), factor)
        norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), factor)


class _Gathered(torch.autograd.Function):
    """The tensors of all processes, one after another; their gradients are summed."""

    @staticmethod
    def forward(ctx: Any, own: torch.Tensor,  # type: ignore[override]
                group: Any) -> torch.Tensor:
        ctx.group = group
        every = [torch.empty_like(own) for _ in range(distributed.get_world_size(group))]
        distributed.all_gather(every, own.contiguous(), group=group)
        return torch.stack(every)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Tuple[Any, ...]:  # type: ignore[override]
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient, group=ctx.group)
        return gradient[distributed.get_rank(ctx.group)], None
