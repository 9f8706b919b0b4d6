"""RMSprop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import OptimizerSpec

if TYPE_CHECKING:
    import torch


def build(param_groups: List[Dict[str, Any]], lr: float, alpha: float = 0.99, eps: float = 1e-8,
          momentum: float = 0.0, centered: bool = False,
          weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Return `torch.optim.RMSprop` (Hinton's lecture 6e; `eps` outside the root).

    Args:
        param_groups: as torch takes them; a group's own values win over these arguments.
        lr: learning rate.
        alpha: decay of the running mean of the squared gradient.
        eps: added to the root of that mean.
        momentum: share of the last step that is kept.
        centered: divide by the standard deviation instead of the root mean square.
        weight_decay: added to the gradient as ``weight_decay * w``.
    """
    from torch.optim import RMSprop

    return RMSprop(param_groups, lr=lr, alpha=alpha, eps=eps, momentum=momentum,
                   centered=centered, weight_decay=weight_decay)


def build_tf(param_groups: List[Dict[str, Any]], lr: float, alpha: float = 0.99, eps: float = 1e-8,
             momentum: float = 0.0, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Return RMSprop as TensorFlow computes it: `eps` inside the root; arguments as `build`."""
    from ipucnn.plugins.optimizers._rmsprop_tf import RMSpropTF

    return RMSpropTF(param_groups, lr=lr, alpha=alpha, eps=eps, momentum=momentum,
                     weight_decay=weight_decay)


@hookimpl
def ipucnn_optimizers() -> List[OptimizerSpec]:
    """Return rmsprop and rmsprop_tf."""
    return [
        OptimizerSpec(
            name="rmsprop", summary="RMSprop, epsilon outside the root",
            target="ipucnn.plugins.optimizers.rmsprop:build",
            hyperparameters=("alpha", "eps", "momentum", "centered", "weight_decay")),
        OptimizerSpec(
            name="rmsprop_tf", summary="RMSprop as TensorFlow computes it, epsilon in the root",
            target="ipucnn.plugins.optimizers.rmsprop:build_tf",
            hyperparameters=("alpha", "eps", "momentum", "weight_decay"))]
