"""Freezes the first modules of a model."""

from __future__ import annotations

from torch import nn

from ipucnn.core.errors import UsageError
from ipucnn.core.names import did_you_mean


def train_from(model: nn.Module, first: str) -> None:
    """Freeze all modules before `first`: no gradients, norm and dropout as in evaluation.

    Args:
        model: changed in place; `model.train()` leaves the frozen modules in eval mode.
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
    frozen = set(names[:start])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    order = list(modules)
    for name in order[:order.index(wanted)]:
        module = modules[name]
        if not list(module.children()) and not wanted.startswith(name + "."):
            module.eval()
            module.train = _StaysInEvalMode(module)  # type: ignore[method-assign]


class _StaysInEvalMode:
    """Replaces `train` of a frozen module; an object, not a closure, so that deepcopy copies it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:  # noqa: ARG002
        return self.module
