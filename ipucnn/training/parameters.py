"""Which parameters are trained, and how they are grouped for the optimizer."""

from __future__ import annotations

from typing import Any, Dict, List

import torch  # noqa: TID253
from torch import nn  # noqa: TID253

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.training_session import OptimizerChoice
from ipucnn.core.names import did_you_mean


def parameter_groups(model: nn.Module, weight_decay: float) -> List[Dict[str, Any]]:
    """Return the trained parameters in groups: with weight decay, and without.

    Tensors of one dimension (biases, weights of norm layers) have none, as in the old application
    and in "Bag of Tricks for Image Classification" (He et al., 2019).
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if p.dim() != 1], "weight_decay": weight_decay},
              {"params": [p for p in trained if p.dim() == 1], "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, choice: OptimizerChoice) -> torch.optim.Optimizer:
    """Return the optimizer of a model."""
    optimizer: torch.optim.Optimizer = choice.build(
        parameter_groups(model, choice.weight_decay), lr=choice.lr, **choice.hyperparameters)
    return optimizer


def train_from(model: nn.Module, first: str) -> None:
    """Have everything before a module rest: no gradients, norm and dropout as in evaluation.

    Args:
        model: changed in place; `model.train()` keeps the resting part in eval mode.
        first: path of the first module that is trained (`layer4/0` or `layer4.0`).

    Raises:
        UsageError: there is no such module, or it has no parameters.
    """
    wanted = first.strip("/").replace("/", ".")
    modules = dict(model.named_modules())
    names = [name for name, _ in model.named_parameters()]
    start = next((i for i, name in enumerate(names) if name.startswith(wanted + ".")), None)
    if wanted not in modules or start is None:
        raise UsageError(f"there is no module {first!r} with parameters",
                         did_you_mean(wanted, modules) or "'ipucnn show model NAME --splits' lists "
                         "modules")
    resting = set(names[:start])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in resting)
    order = list(modules)
    for name in order[:order.index(wanted)]:
        module = modules[name]
        if not list(module.children()) and not wanted.startswith(name + "."):
            module.eval()
            module.train = _stay(module)  # type: ignore[method-assign]


class _stay:
    """Replaces `train` of a module that stays in eval mode; no closure, so that it is copied."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:  # noqa: ARG002
        return self.module
