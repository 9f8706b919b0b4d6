"""The optimizer; imported when a training is set up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List

import torch

if TYPE_CHECKING:
    from ipucnn_frozen_optimizer.options import OptimizerOptions


def build_optimizer(param_groups: List[Dict[str, Any]], lr: float,
                    options: OptimizerOptions) -> torch.optim.Optimizer:
    """Return the optimizer of parameter groups, each of which has its `weight_decay`."""
    class FrozenOptimizer(torch.optim.Optimizer):
        """Steps against the sign of a running mean of the gradients.

        ``m <- beta m + (1 - beta) g``, ``w <- w - lr (sign(m) + weight_decay w)``.
        """

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            """Make a step with the `lr` and `weight_decay` that each group has now."""
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            beta = options.frozen_optimizer_beta
            for group in self.param_groups:
                for weight in group["params"]:
                    if weight.grad is None:
                        continue
                    state = self.state[weight]  # saved with a checkpoint
                    mean = state.setdefault("mean", torch.zeros_like(weight))
                    mean.mul_(beta).add_(weight.grad, alpha=1 - beta)
                    direction = mean.sign().add_(weight, alpha=group["weight_decay"])
                    weight.sub_(direction, alpha=group["lr"])
            return loss

    return FrozenOptimizer(param_groups, {"lr": lr, "weight_decay": 0.0})
