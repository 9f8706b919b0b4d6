"""LAMB, for large batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Tuple

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import OptimizerSpec

if TYPE_CHECKING:
    import torch


def build(param_groups: List[Dict[str, Any]], lr: float, betas: Tuple[float, float] = (0.9, 0.999),
          eps: float = 1e-6, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Return LAMB (You et al., 2020).

    Args:
        param_groups: as torch takes them; a group's own values win over these arguments.
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: of the weights, within the update whose norm is adapted.
    """
    from ipucnn.plugins.optimizers._lamb import Lamb

    return Lamb(param_groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


@hookimpl
def ipucnn_optimizers() -> List[OptimizerSpec]:
    """Return lamb."""
    return [OptimizerSpec(name="lamb", summary="Adam with a rate per layer, for large batches",
                          target="ipucnn.plugins.optimizers.lamb:build",
                          hyperparameters=("betas", "eps", "weight_decay"))]
