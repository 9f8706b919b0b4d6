"""RMSprop as TensorFlow computes it."""

from __future__ import annotations

from typing import Any, Dict, List

import torch

from ipucnn.plugins.optimizers._steps import GroupwiseOptimizer


class RMSpropTF(GroupwiseOptimizer):
    """``s <- a s + (1 - a) g^2; m <- mu m + lr g / sqrt(s + eps); w <- w - m``, s from 1.

    Against torch's RMSprop: eps is within the root, the mean of squares begins at 1, and the
    momentum holds steps with their learning rate. Source: TensorFlow's `RMSPropOptimizer`
    (`training_ops`), with which EfficientNet was trained. Weight decay is added to the gradient.
    """

    def __init__(self, params: Any, lr: float, alpha: float = 0.99, eps: float = 1e-8,
                 momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps, "momentum": momentum,
                                  "weight_decay": weight_decay})

    def update_group(self, group: Dict[str, Any]) -> None:
        """Update the parameters of a group that have a gradient."""
        weights: List[torch.Tensor] = [p for p in group["params"] if p.grad is not None]
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["square_avg"] = torch.ones_like(weight)
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        grads = [p.grad for p in weights if p.grad is not None]
        if group["weight_decay"]:
            grads = list(torch._foreach_add(grads, weights, alpha=group["weight_decay"]))
        squares = [self.state[p]["square_avg"] for p in weights]
        moments = [self.state[p]["momentum_buffer"] for p in weights]
        torch._foreach_mul_(squares, group["alpha"])
        torch._foreach_addcmul_(squares, grads, grads, value=1 - group["alpha"])
        roots = torch._foreach_sqrt(torch._foreach_add(squares, group["eps"]))
        torch._foreach_mul_(moments, group["momentum"])
        torch._foreach_addcdiv_(moments, grads, roots, value=group["lr"])
        torch._foreach_sub_(weights, moments)
