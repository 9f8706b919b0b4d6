"""The optimizer; imported when a training is prepared."""

import torch


def build(param_groups, lr, options):
    """Return the optimizer.

    Args:
        param_groups: parameter groups, each with its weight decay.
        lr: learning rate.
        options: decay and threshold of the running mean (`options.SignSGDOptions`).
    """
    return SignSGD(param_groups, lr, beta=options.signum_beta, threshold=options.sign_threshold)


class SignSGD(torch.optim.Optimizer):
    """Sign SGD with a running mean: ``w <- w - lr (sign(m) + decay w)``.

    ``m <- beta m + (1 - beta) g`` is the running mean of the gradients.

    Args:
        params: parameter groups; values in a group take precedence over these arguments.
        lr: learning rate.
        weight_decay: share of the weight that a step of size 1 would take away.
        beta: decay of the mean.
        threshold: where the mean is not larger than this, its sign counts as 0.
    """

    def __init__(self, params, lr, weight_decay=0.0, beta=0.0, threshold=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "beta": beta,
                                  "threshold": threshold})

    @torch.no_grad()
    def step(self, closure=None):
        """Update the weights."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    mean = self._mean(weight, group["beta"])
                    step = mean.sign().mul_(mean.abs() > group["threshold"])
                    weight.sub_(step.add_(weight, alpha=group["weight_decay"]), alpha=group["lr"])
        return loss

    def _mean(self, weight, beta):
        if not beta:
            return weight.grad
        state = self.state[weight]  # is saved and restored with a checkpoint
        if not state:
            state["mean"] = torch.zeros_like(weight)
        return state["mean"].mul_(beta).add_(weight.grad, alpha=1 - beta)
