"""Creates PopTorch optimizers, whose hyper-parameters are compiled; `step` never runs.

Values that are passed to the constructor can change later; others are compiled in. All values are
passed by keyword, because positions differ between releases.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List

import poptorch
import torch

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.training_session import OptimizerChoice
from ipucnn.models.optimisation import parameter_groups
from ipucnn.plugins.backends._ipu.optimizers import hyperparameters

_UNSAID = {"momentum": 0.0, "centered": False, "betas": (0.9, 0.999)}
"""Values that default to the device's own."""

Groups = List[Dict[str, Any]]
Maker = Callable[[Groups, OptimizerChoice, float, float], torch.optim.Optimizer]


def make_optimizer(model: torch.nn.Module, choice: OptimizerChoice, loss_scaling: float,
                   velocity_ratio: float) -> torch.optim.Optimizer:
    """Return the device's optimizer of that name.

    Args:
        model: the model that is trained.
        choice: the optimizer and its options.
        loss_scaling: its initial value.
        velocity_ratio: loss scaling over velocity scaling, of `sgd_combined`.

    Raises:
        UsageError: the device has no such optimizer.
    """
    maker = MAKERS.get(choice.name)
    if maker is None:
        raise UsageError(f"the IPU has no optimizer {choice.name!r}",
                         "optimizers: " + ", ".join(MAKERS))
    groups = parameter_groups(model, choice.weight_decay)
    return maker(groups, choice, loss_scaling, velocity_ratio)


def set_rates(optimizer: torch.optim.Optimizer, lr: float, loss_scaling: float) -> bool:
    """Set the changing values of an optimizer; return whether the device needs an update.

    Velocity scaling keeps its initial value, because the device does not rescale the stored
    velocity, so that a larger scale would reduce the momentum.
    """
    before = _rates(optimizer)
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.loss_scaling = loss_scaling  # type: ignore[attr-defined]
    return _rates(optimizer) != before


def _rates(optimizer: torch.optim.Optimizer) -> List[Any]:
    return [optimizer.loss_scaling,  # type: ignore[attr-defined]
            *(group["lr"] for group in optimizer.param_groups)]


def _maker(name: str, combined: bool = False, **fixed: Any) -> Maker:
    """Return a function that creates an optimizer of that class."""
    def make(groups: Groups, choice: OptimizerChoice, scaling: float,
             ratio: float) -> torch.optim.Optimizer:
        # a given value is variable: a momentum of 0 would cost the device a tensor
        given = {key: value for key, value in hyperparameters(choice).items()
                 if key not in _UNSAID or value != _UNSAID[key]}
        if combined:
            given["velocity_scaling"] = scaling / ratio
        made: torch.optim.Optimizer = getattr(poptorch.optim, name)(
            groups, lr=choice.lr, weight_decay=choice.weight_decay, loss_scaling=scaling,
            **given, **fixed)
        return made

    return make


MAKERS: Dict[str, Maker] = {
    "sgd": _maker("SGD", use_combined_accum=False),
    "sgd_combined": _maker("SGD", combined=True, use_combined_accum=True),
    "adam": _maker("Adam"), "adamw": _maker("AdamW"),
    "rmsprop": _maker("RMSprop", use_tf_variant=False),
    "rmsprop_tf": _maker("RMSprop", use_tf_variant=True), "lamb": _maker("LAMB")}
"""By the name of the registered optimizer that each computes."""
