"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Tuple

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import OptimizerSpec

if TYPE_CHECKING:
    import torch


def build_adam(param_groups: List[Dict[str, Any]], lr: float,
               betas: Tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
               weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Return `torch.optim.Adam` (Kingma and Ba, 2015).

    Args:
        param_groups: as torch takes them; a group's own values win over these arguments.
        lr: learning rate.
        betas: decay of the running means of the gradient and of its square.
        eps: added to the denominator.
        weight_decay: added to the gradient as ``weight_decay * w``.
    """
    from torch.optim import Adam

    from ipucnn.training.fused import fused_if_possible

    return fused_if_possible(Adam, param_groups, lr=lr, betas=(betas[0], betas[1]), eps=eps,
                             weight_decay=weight_decay)


def build_adamw(param_groups: List[Dict[str, Any]], lr: float,
                betas: Tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Return `torch.optim.AdamW` (Loshchilov and Hutter, 2019); arguments as `build_adam`.

    Weights shrink by ``lr * weight_decay * w``, apart from the gradient. The default is no decay,
    as for every optimizer here, and not torch's 0.01: decay is an option of the run.
    """
    from torch.optim import AdamW

    from ipucnn.training.fused import fused_if_possible

    return fused_if_possible(AdamW, param_groups, lr=lr, betas=(betas[0], betas[1]), eps=eps,
                             weight_decay=weight_decay)


@hookimpl
def ipucnn_optimizers() -> List[OptimizerSpec]:
    """Return adam and adamw."""
    hyperparameters = ("betas", "eps", "weight_decay")
    return [
        OptimizerSpec(name="adam", summary="Adam; weight decay enters the gradient",
                      target="ipucnn.plugins.optimizers.adamw:build_adam",
                      hyperparameters=hyperparameters),
        OptimizerSpec(name="adamw", summary="Adam with decoupled weight decay",
                      target="ipucnn.plugins.optimizers.adamw:build_adamw",
                      hyperparameters=hyperparameters),
    ]
