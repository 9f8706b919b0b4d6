"""Stochastic gradient descent, in the two forms that devices distinguish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import OptimizerSpec
from ipucnn.plugins.optimizers._options import MomentumOption

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SGDOptions(MomentumOption):
    """Options of stochastic gradient descent."""

    dampening: float = option(0.0, "Dampening of the momentum.",
                              minimum=0.0, maximum=1.0)
    nesterov: bool = option(False, "Use Nesterov momentum.",
                            basic=True)

    def __post_init__(self) -> None:
        if self.nesterov and (not self.momentum or self.dampening):
            raise UsageError("'--nesterov' needs a momentum and no dampening",
                             "add '--momentum 0.9', and leave '--dampening' out")


def build(param_groups: List[Dict[str, Any]], lr: float,
          options: SGDOptions) -> torch.optim.Optimizer:
    """Return `torch.optim.SGD`: ``v <- momentum v + (1 - dampening) g; w <- w - lr v``.

    Args:
        param_groups: as torch takes them; a group's weight decay is added to the gradient as
            ``weight_decay * w``.
        lr: learning rate.
        options: momentum, dampening, and whether the momentum is Nesterov's.
    """
    from torch.optim import SGD

    from ipucnn.models.optimisation import fused_if_possible

    return fused_if_possible(SGD, param_groups, lr=lr, momentum=options.momentum,
                             dampening=options.dampening, nesterov=options.nesterov)


@hookimpl
def ipucnn_optimizers() -> List[OptimizerSpec]:
    """Return the records of the optimizers `sgd` and `sgd_combined`."""
    target = "ipucnn.plugins.optimizers.sgd:build"
    return [
        # 0.1 for 256 images: "Deep Residual Learning" (He et al., 2016), section 3.4
        OptimizerSpec(name="sgd", lr=0.1,
                      summary="SGD with momentum",
                      target=target, options=SGDOptions),
        # The update rule is the same. A device that accumulates gradients keeps one tensor for
        # accumulation and velocity instead of two, which saves memory; the host has no such pair.
        OptimizerSpec(name="sgd_combined", lr=0.1, aliases=("sgd-combined-accum",), target=target,
                      summary="SGD with momentum; one tensor for accumulation and velocity on IPUs",
                      options=SGDOptions),
    ]
