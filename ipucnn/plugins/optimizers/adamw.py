"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import OptimizerSpec

if TYPE_CHECKING:
    import torch

    from ipucnn.plugins.optimizers._options import AdamOptions


def build_adam(param_groups: List[Dict[str, Any]], lr: float,
               options: AdamOptions) -> torch.optim.Optimizer:
    """Return `torch.optim.Adam` (Kingma and Ba, 2015).

    Args:
        param_groups: as torch takes them; a group's weight decay is added to the gradient as
            ``weight_decay * w``.
        lr: learning rate.
        options: decay of the running means, and epsilon, which is added to the denominator.
    """
    from torch.optim import Adam

    from ipucnn.models.optimisation import fused_if_possible

    return fused_if_possible(Adam, param_groups, lr=lr, betas=(options.beta1, options.beta2),
                             eps=options.optimizer_eps)


def build_adamw(param_groups: List[Dict[str, Any]], lr: float,
                options: AdamOptions) -> torch.optim.Optimizer:
    """Return `torch.optim.AdamW` (Loshchilov and Hutter, 2019); arguments as `build_adam`.

    Weights shrink by ``lr * weight_decay * w``, apart from the gradient. Without a group's own
    there is no decay, as for every optimizer here, and not torch's 0.01.
    """
    from torch.optim import AdamW

    from ipucnn.models.optimisation import fused_if_possible

    return fused_if_possible(AdamW, param_groups, lr=lr, betas=(options.beta1, options.beta2),
                             eps=options.optimizer_eps, weight_decay=0.0)


@hookimpl
def ipucnn_optimizers() -> List[OptimizerSpec]:
    """Return the records of the optimizers `adam` and `adamw`."""
    options = "ipucnn.plugins.optimizers._options:AdamOptions"
    return [
        # 0.001: "Adam" (Kingma and Ba, 2015), algorithm 1
        OptimizerSpec(name="adam", lr=1e-3, lr_growth="none",
                      summary="Adam with weight decay in the gradient",
                      target="ipucnn.plugins.optimizers.adamw:build_adam", options=options),
        OptimizerSpec(name="adamw", lr=1e-3, lr_growth="none",
                      summary="Adam with decoupled weight decay",
                      target="ipucnn.plugins.optimizers.adamw:build_adamw", options=options),
    ]
