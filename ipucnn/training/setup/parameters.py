"""Freezes the first modules of a model, and gives layers rates of their own."""

from __future__ import annotations

from typing import Collection, Dict, List, Tuple

from torch import nn

from ipucnn.core.errors import UsageError
from ipucnn.core.names import did_you_mean
from ipucnn.models.layer_rates import head_of, rate_factors
from ipucnn.training.options.fine_tuning import FineTuningPart
from ipucnn.training.options.train_options import TrainOptions


def layers_of(model: nn.Module, tuning: FineTuningPart) -> Tuple[Dict[str, float], str]:
    """Return the factors on the learning rate by parameter, and the path of the output layer.

    The path is empty where it is not trained alone at first.
    """
    return (rate_factors(model, tuning.layer_decay, tuning.head_lr_factor),
            head_of(model) if tuning.frozen_epochs else "")


def freeze(model: nn.Module, options: TrainOptions) -> None:
    """Freeze the modules that the options of a training name; changes the model in place.

    Raises:
        UsageError: there is no such module, or none are left to train.
    """
    if options.optimisation.first_trainable_layer:
        train_from(model, options.optimisation.first_trainable_layer)
    if options.fine_tuning.frozen_module:
        freeze_through(model, options.fine_tuning.frozen_module)


def train_from(model: nn.Module, first: str) -> None:
    """Freeze all modules before `first`: no gradients, norm and dropout as in evaluation.

    Args:
        model: changed in place; `model.train()` leaves the frozen modules in eval mode.
        first: path of the first module that is trained (`layer4/0` or `layer4.0`).

    Raises:
        UsageError: there is no such module, or it has no parameters.
    """
    wanted, inside = _found(model, first)
    names = [name for name, _ in model.named_parameters()]
    order = [path for path, _ in model.named_modules()]
    _freeze(model, names[:names.index(inside[0])], order[:order.index(wanted)], wanted)


def freeze_through(model: nn.Module, last: str) -> None:
    """Freeze the module `last` and all before it; as `train_from` otherwise.

    Raises:
        UsageError: there is no such module, it has no parameters, or none are left to train.
    """
    wanted, inside = _found(model, last)
    names = [name for name, _ in model.named_parameters()]
    end = names.index(inside[-1]) + 1
    if end == len(names):
        raise UsageError(f"'--freeze {last}' leaves nothing to train",
                         "name an earlier module; 'ipucnn show model NAME --splits' lists them")
    order = [path for path, _ in model.named_modules()]
    after = next(number for number in range(order.index(wanted) + 1, len(order) + 1)
                 if number == len(order) or not order[number].startswith(wanted + "."))
    _freeze(model, names[:end], order[:after])


def _found(model: nn.Module, path: str) -> Tuple[str, List[str]]:
    """Return the name of a module, and those of its parameters."""
    wanted = path.strip("/").replace("/", ".")
    modules = dict(model.named_modules())
    inside = [name for name, _ in model.named_parameters() if name.startswith(wanted + ".")]
    if wanted not in modules or not inside:
        raise UsageError(f"there is no module {path!r} with parameters",
                         did_you_mean(wanted, modules) or "'ipucnn show model NAME --splits' lists "
                         "modules")
    return wanted, inside


def _freeze(model: nn.Module, parameters: Collection[str], modules: Collection[str],
            first: str = "") -> None:
    """Freeze parameters and layers by name, except modules that hold `first`."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in parameters)
    for path, module in model.named_modules():
        if path in modules and not list(module.children()) and not first.startswith(path + "."):
            module.eval()
            module.train = _StaysInEvalMode(module)  # type: ignore[method-assign]


class _StaysInEvalMode:
    """Replaces `train` of a frozen module; an object, not a closure, so that deepcopy copies it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:  # noqa: ARG002
        return self.module
