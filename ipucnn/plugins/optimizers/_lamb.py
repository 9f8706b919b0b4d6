"""LAMB: Adam with a learning rate for every layer."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch

from ipucnn.plugins.optimizers._steps import GroupwiseOptimizer


class Lamb(GroupwiseOptimizer):
    """``w <- w - lr * |w| / |u| * u`` with ``u = m^ / (sqrt(v^) + eps) + decay * w``.

    Source: You et al., "Large Batch Optimization for Deep Learning" (2020), algorithm 2, with bias
    correction. The ratio of norms is 1 if one of them is 0. It is computed for every tensor, as in
    the paper's algorithm and as IPUs do, also for biases and norm layers. `trust` limits it.
    """

    def __init__(self, params: Any, lr: float, betas: Tuple[float, float] = (0.9, 0.999),
                 eps: float = 1e-6, weight_decay: float = 0.0,
                 trust: Tuple[float, Optional[float]] = (0.0, None)) -> None:
        super().__init__(params, {"lr": lr, "betas": (betas[0], betas[1]), "eps": eps,
                                  "weight_decay": weight_decay})
        self._trust = trust

    def update_group(self, group: Dict[str, Any]) -> None:
        """Update the parameters of a group that have a gradient.

        One call serves all of them where torch has it: a GPU waits while calls are made one by one.
        """
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return
        for weight in weights:
            if not self.state[weight]:
                self.state[weight].update(step=0, exp_avg=torch.zeros_like(weight),
                                          exp_avg_sq=torch.zeros_like(weight))
            self.state[weight]["step"] += 1
        states = [self.state[weight] for weight in weights]
        means, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        gradients = [weight.grad for weight in weights]
        first, second = group["betas"]
        torch._foreach_mul_(means, first)
        torch._foreach_add_(means, gradients, alpha=1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - second)
        roots = torch._foreach_div(squares, [1 - second ** state["step"] for state in states])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        updates = torch._foreach_div(means, [1 - first ** state["step"] for state in states])
        torch._foreach_div_(updates, roots)
        torch._foreach_add_(updates, weights, alpha=group["weight_decay"])
        ratios = self._ratios(weights, updates)
        torch._foreach_mul_(updates, list((ratios * group["lr"]).unbind()))
        torch._foreach_sub_(weights, updates)

    def _ratios(self, weights: List[torch.Tensor],
                updates: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the trust ratio of each tensor, `(n,)`."""
        lengths, steps = (torch.stack(torch._foreach_norm(tensors))
                          for tensors in (weights, list(updates)))
        ratios = torch.where((lengths > 0) & (steps > 0), lengths / steps, torch.ones_like(steps))
        return ratios if self._trust == (0.0, None) else ratios.clamp(*self._trust)
