"""LAMB: Adam with a learning rate for every layer."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

import torch

from ipucnn.plugins.optimizers._steps import GroupwiseOptimizer


class Lamb(GroupwiseOptimizer):
    """``w <- w - lr * |w| / |u| * u`` with ``u = m^ / (sqrt(v^) + eps) + decay * w``.

    Source: You et al., "Large Batch Optimization for Deep Learning" (2020), algorithm 2, with bias
    correction. The ratio of norms is 1 where one of them is 0. It is taken for every tensor, as in
    the paper's algorithm and as IPUs do, also for biases and norm layers. `trust` limits it.
    """

    def __init__(self, params: Any, lr: float, betas: Tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-6, weight_decay: float = 0.0,
                 trust: Tuple[float, Optional[float]] = (0.0, None)) -> None:
        super().__init__(params, {"lr": lr, "betas": (betas[0], betas[1]), "eps": eps,
                                  "weight_decay": weight_decay})
        self._trust = trust

    def update_group(self, group: Dict[str, Any]) -> None:
        """Update the parameters of a group that have a gradient."""
        for weight in group["params"]:
            if weight.grad is not None:
                self._update(weight, group, self.state[weight])

    def _update(self, weight: torch.Tensor, group: Dict[str, Any], state: Dict[str, Any]) -> None:
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(weight),
                         exp_avg_sq=torch.zeros_like(weight))
        state["step"] += 1
        first, second = group["betas"]
        gradient, mean, square = weight.grad, state["exp_avg"], state["exp_avg_sq"]
        assert gradient is not None
        mean.mul_(first).add_(gradient, alpha=1 - first)
        square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        root = (square / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
        update = mean / (1 - first ** state["step"]) / root
        update.add_(weight, alpha=group["weight_decay"])
        norms = weight.norm(), update.norm()
        ratio = torch.where((norms[0] > 0) & (norms[1] > 0), norms[0] / norms[1],
                            torch.ones((), device=weight.device))
        if self._trust != (0.0, None):
            ratio = ratio.clamp(*self._trust)
        weight.sub_(update * (group["lr"] * ratio))
