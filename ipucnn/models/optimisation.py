"""Creates a model's optimizer: parameter groups, and fused variants of torch's optimizers."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple
from weakref import WeakKeyDictionary

import torch
from torch import nn

from ipucnn.core.execution.training_session import OptimizerChoice

_FUSED_ON_CPU = {"SGD", "Adam", "AdamW"}
"""Optimizers with a fused kernel for the CPU."""


RATE_FACTOR = "rate_factor"
"""Key of a parameter group: the factor on the learning rate, where it is not 1."""

CHANGED = "changed_settings"
"""Key of a saved state: the settings that the optimizer itself has changed, which are its progress:
the number of steps, or an estimated step size."""

_GIVEN = ("params", "lr", "weight_decay", RATE_FACTOR)
"""Settings of a parameter group whose values are not the optimizer's own."""

_made: WeakKeyDictionary[torch.optim.Optimizer, List[Dict[str, Any]]] = WeakKeyDictionary()
"""The settings of the parameter groups of an optimizer as it was made."""


def parameter_groups(model: nn.Module, weight_decay: float,
                     factors: Optional[Mapping[str, float]] = None,
                     head: str = "") -> List[Dict[str, Any]]:
    """Return the trainable parameters in groups: with and without weight decay.

    Tensors with at most one dimension (biases, weights of norm layers, scalars) have none, as in
    the old application and in "Bag of Tricks for Image Classification" (He et al., 2019).

    Args:
        model: the network.
        weight_decay: of tensors with more dimensions.
        factors: on the learning rate, by parameter name; each value has groups of its own.
        head: path of a module with groups of its own: torch's fused SGD requires that all tensors
            of a group have been updated as often.
    """
    rows: Dict[Tuple[float, bool], List[torch.Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            row = (factors or {}).get(name, 1.0), bool(head) and name.startswith(head + ".")
            rows.setdefault(row, []).append(parameter)
    groups = [{"params": [p for p in trained if (p.dim() < 2) is flat],
               "weight_decay": 0.0 if flat else weight_decay,
               **({} if factor == 1 else {RATE_FACTOR: factor})}
              for (factor, _), trained in rows.items() for flat in (False, True)]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, choice: OptimizerChoice,
                   factors: Optional[Mapping[str, float]] = None,
                   head: str = "") -> torch.optim.Optimizer:
    """Return the optimizer of a model's trainable parameters; `set_rate` sets its rates.

    Args:
        model: the network.
        choice: the optimizer.
        factors: see `parameter_groups`.
        head: likewise.
    """
    return optimizer_of(parameter_groups(model, choice.weight_decay, factors, head), choice)


def optimizer_of(groups: List[Dict[str, Any]], choice: OptimizerChoice) -> torch.optim.Optimizer:
    """Return the optimizer of parameter groups."""
    optimizer: torch.optim.Optimizer = choice.build(groups, lr=choice.lr)
    _made[optimizer] = [_copied(group) for group in optimizer.param_groups]
    return optimizer


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups, each times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get(RATE_FACTOR, 1.0)


def optimizer_state(optimizer: torch.optim.Optimizer) -> Dict[str, Any]:
    """Return the state of an optimizer that `make_optimizer` returned, for `load_optimizer`.

    It is its state dictionary and the names of the settings of its parameter groups that it has
    changed itself.
    """
    state: Dict[str, Any] = optimizer.state_dict()
    changed = sorted({name for group, made in zip(optimizer.param_groups, _made.get(optimizer, ()))
                      for name, value in made.items() if not _same(value, group.get(name))})
    return {**state, CHANGED: changed} if changed else state


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a state of `optimizer_state` into an optimizer, which keeps its settings.

    A restored training has the settings of its options. Those that the optimizer had changed itself
    continue from their saved values.

    Raises:
        ValueError: it is the state of other parameters.
    """
    plain = {name: value for name, value in state.items() if name != CHANGED}
    optimizer.load_state_dict(with_own_settings(plain, optimizer, state.get(CHANGED, ())))


def with_own_settings(state: Mapping[str, Any], optimizer: torch.optim.Optimizer,
                      kept: Sequence[str] = ()) -> Dict[str, Any]:
    """Return a saved state with the settings of the optimizer that is to load it.

    A restored training has the settings of its options. torch reads from them, too, where the
    state belongs: the step counts of a fused optimizer are on the device.

    Args:
        state: the saved state; with another number of parameter groups it is returned unchanged,
            and the optimizer refuses it.
        optimizer: its settings are used.
        kept: settings whose saved values are used, because they belong to the state.
    """
    saved, own = state["param_groups"], optimizer.param_groups
    if len(saved) != len(own):
        return dict(state)
    return {**state, "param_groups": [
        {**group, **{name: _placed(group[name], value) if name in kept and name in group else value
                     for name, value in mine.items() if name != "params"}}
        for group, mine in zip(saved, own)]}


def _placed(saved: Any, own: Any) -> Any:
    """Return a saved setting, a tensor on the device of the optimizer's own."""
    tensors = isinstance(saved, torch.Tensor) and isinstance(own, torch.Tensor)
    return saved.to(own.device) if tensors else saved


def _copied(group: Mapping[str, Any]) -> Dict[str, Any]:
    """Return a copy of the settings of a parameter group that are the optimizer's own."""
    found: Dict[str, Any] = {}
    for name, value in group.items():
        if name not in _GIVEN:
            with suppress(Exception):  # of any type; what cannot be copied cannot be saved
                found[name] = copy.deepcopy(value)
    return found


def _same(one: Any, other: Any) -> bool:
    """Return whether two values of a setting are equal."""
    try:
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            return torch.equal(one, other)
        return bool(one == other)
    except (RuntimeError, TypeError, ValueError):  # lists of tensors, for example
        return False


def state_size(build: Callable[..., torch.optim.Optimizer]) -> int:
    """Return how many values of state an optimizer has for each weight, measured by a step.

    Args:
        build: creates it, see `OptimizerChoice`.
    """
    weight = nn.Parameter(torch.ones(4, 4))
    weight.grad = torch.ones(4, 4)
    optimizer = build([{"params": [weight], "weight_decay": 0.0}], lr=0.1)
    optimizer.step()
    return sum(value.numel() // weight.numel() for state in optimizer.state.values()
               for value in state.values() if isinstance(value, torch.Tensor))


def fused_if_possible(kind: Any, groups: List[Dict[str, Any]],
                      **values: Any) -> torch.optim.Optimizer:
    """Return ``kind(groups, **values)``, fused if torch supports it.

    Fused kernels make one pass over each tensor. torch has them for the CPU since 2.4; they need
    floating-point tensors on a CPU or GPU.

    Args:
        kind: a class of `torch.optim`.
        groups: parameter groups of torch.
        **values: further arguments of the class.
    """
    tensors = [tensor for group in groups for tensor in group["params"]]
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if tensors and version >= (2, 4) and kind.__name__ in _FUSED_ON_CPU \
            and all(tensor.is_floating_point() and tensor.device.type in ("cpu", "cuda")
                    for tensor in tensors):
        values["fused"] = True
    optimizer: torch.optim.Optimizer = kind(groups, **values)
    return optimizer
