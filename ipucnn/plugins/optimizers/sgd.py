"""Stochastic gradient descent, in the two forms that devices tell apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import OptimizerSpec

if TYPE_CHECKING:
    import torch


def build(param_groups: List[Dict[str, Any]], lr: float, momentum: float = 0.0,
          dampening: float = 0.0, nesterov: bool = False,
          weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Return `torch.optim.SGD`: ``v <- momentum v + (1 - dampening) g; w <- w - lr v``.

    Args:
        param_groups: as torch takes them; a group's own values win over these arguments.
        lr: learning rate.
        momentum: share of the last velocity that is kept.
        dampening: share of the gradient that the velocity leaves out.
        nesterov: look ahead along the velocity; needs a momentum and no dampening.
        weight_decay: added to the gradient as ``weight_decay * w``.
    """
    from torch.optim import SGD

    from ipucnn.training.fused import fused_if_possible

    return fused_if_possible(SGD, param_groups, lr=lr, momentum=momentum, dampening=dampening,
                             nesterov=nesterov, weight_decay=weight_decay)


@hookimpl
def ipucnn_optimizers() -> List[OptimizerSpec]:
    """Return sgd and sgd_combined."""
    common = {
        "target": "ipucnn.plugins.optimizers.sgd:build",
        "hyperparameters": ("momentum", "dampening", "nesterov", "weight_decay"),
    }
    return [
        OptimizerSpec(name="sgd", summary="SGD with momentum; accumulation and velocity apart",
                      **common),  # type: ignore[arg-type]
        # The update rule is the same. A device that accumulates gradients keeps one tensor for
        # accumulation and velocity instead of two, which saves memory; the host has no such pair.
        OptimizerSpec(name="sgd_combined", aliases=("sgd-combined-accum",),
                      summary="SGD with momentum; one tensor for accumulation and velocity on IPU",
                      **common),  # type: ignore[arg-type]
    ]
