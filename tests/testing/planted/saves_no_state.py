"""An optimizer whose momentum its state dictionary lacks."""

import ipucnn


def build(param_groups, lr):
    import torch

    class Planted(torch.optim.Optimizer):
        def __init__(self):
            super().__init__(param_groups, {"lr": lr, "weight_decay": 0.0})
            self.means = {}

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for weight in group["params"]:
                    mean = self.means.setdefault(weight, torch.zeros_like(weight))
                    mean.mul_(0.5).add_(weight.grad)
                    weight.sub_(mean, alpha=group["lr"])

    return Planted()


@ipucnn.hookimpl
def ipucnn_optimizers():
    return [ipucnn.OptimizerSpec(name="planted", summary="planted", target=build)]
