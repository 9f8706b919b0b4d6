"""The optimizer; imported when a training is set up."""

import torch


class SignSGD(torch.optim.Optimizer):
    """A step of size `lr` against the sign of the gradient: ``w <- w - lr (sign(g) + decay w)``.

    Args:
        params: parameter groups; a group's own values win over these arguments.
        lr: learning rate.
        weight_decay: share of the weight that a step of size 1 would take away.
    """

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        """Make a step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    step = weight.grad.sign().add_(weight, alpha=group["weight_decay"])
                    weight.sub_(step, alpha=group["lr"])
        return loss
