"""An optimizer that ignores the learning rate of its groups."""

import ipucnn


def build(param_groups, lr):
    import torch

    class Planted(torch.optim.Optimizer):
        def __init__(self):
            super().__init__(param_groups, {"lr": lr, "weight_decay": 0.0})

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                for weight in group["params"]:
                    weight.sub_(weight.grad, alpha=lr)

    return Planted()


@ipucnn.hookimpl
def ipucnn_optimizers():
    return [ipucnn.OptimizerSpec(name="planted", summary="planted", target=build)]
