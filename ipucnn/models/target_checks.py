"""Checks what the targets of models, norm layers and optimizers return.

Anything else would end in an error of torch, which does not name the plugin, or train silently
otherwise than the options state.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Callable, Dict, List

from ipucnn.core.errors import CHECK_PLUGIN, PluginError
from ipucnn.core.names import described
from ipucnn.core.registry.loading import cause_of

if TYPE_CHECKING:
    import torch

    from ipucnn.models.norms import NormSite


def check_model(model: torch.nn.Module, who: str, classes: int, input_size: int,
                foreign: bool) -> None:
    """Check a network as its target returned it.

    Args:
        model: the network.
        who: its plugin, in words.
        classes: number of its outputs.
        input_size: height and width of its images.
        foreign: it is a third party's, whose outputs are checked, too.

    Raises:
        PluginError: its weights are not float32 in memory, or its outputs have another shape.
    """
    import torch

    for name, value in model.named_parameters():
        if isinstance(value, torch.nn.parameter.UninitializedParameter):
            problem = "has no shape yet"
        elif value.is_floating_point() and value.dtype is not torch.float32:
            problem = f"is {value.dtype}"
        elif value.device.type == "meta":
            problem = "is on the device 'meta'"
        else:
            continue
        raise PluginError(f"weight {name!r} of {who} {problem}, expected float32 values in memory",
                          CHECK_PLUGIN)
    shape = _output_shape(model, input_size) if foreign else None
    if shape not in (None, [2, classes]):
        raise PluginError(f"{who} returns {_shown(shape)} for 2 images, expected a tensor of shape "
                          f"[2, {classes}]: a number for each of {classes} classes", CHECK_PLUGIN)


def copied(model: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a network.

    Raises:
        PluginError: it holds an object that cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:
        kind = type(model)
        raise PluginError(f"a model of type '{kind.__module__}.{kind.__qualname__}' cannot be "
                          f"copied for a validation: {cause_of(error)}", CHECK_PLUGIN) from error


def _output_shape(model: torch.nn.Module, input_size: int) -> Any:
    """Return the shape of a network's outputs for two images, without computing them.

    A string describes outputs that are no tensor. None for a network that needs values.
    """
    import torch

    with suppress(Exception):  # an error of the network is reported where it is used
        twin = copy.deepcopy(model).to("meta").eval()
        with torch.no_grad():
            found = twin(torch.zeros(2, 3, input_size, input_size, dtype=torch.float32,
                                     device="meta"))
        return list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
    return None


def _shown(shape: Any) -> str:
    return f"a {shape}" if isinstance(shape, str) else f"a tensor of shape {shape}"


def check_norm(layer: torch.nn.Module, site: NormSite, who: str) -> None:
    """Check that a norm layer keeps the shape of its input.

    Args:
        layer: as its target returned it.
        site: the batch norm that it replaces.
        who: its plugin, in words.

    Raises:
        PluginError: it fails, or returns something else.
    """
    import torch

    try:
        twin = copy.deepcopy(layer).eval()
    except Exception:  # an error of the layer is then reported where it is used
        return
    images = torch.zeros(2, site.channels, 4, 4, dtype=torch.float32)
    try:
        with torch.no_grad():
            found = twin(images)
    except Exception as error:
        raise PluginError(f"{who} cannot normalise the {site.channels} channels of {site.name!r}: "
                          f"{cause_of(error)}", CHECK_PLUGIN) from error
    if not isinstance(found, torch.Tensor) or found.shape != images.shape:
        raise PluginError(f"{who} returned {described(found)} for {site.name!r}, expected a tensor "
                          f"of the shape of its input, {tuple(images.shape)}", CHECK_PLUGIN)


def checked_optimizer(make: Callable[..., Any], who: str, groups: List[Dict[str, Any]],
                      lr: float) -> torch.optim.Optimizer:
    """Return the optimizer of parameter groups, after a check that it has these groups.

    Args:
        make: the target.
        who: its plugin, in words.
        groups: the parameters, at least one.
        lr: the learning rate.

    Raises:
        PluginError: the target returned something else, or leaves parameters or groups out.
    """
    import torch

    expected = [[id(value) for value in group["params"]] for group in groups]
    if not expected:
        raise PluginError("no weight of the model requires a gradient",
                          "its target must return weights that can be trained")
    optimizer = make(groups, lr=lr)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise PluginError(f"the target of {who} returned {described(optimizer)}, expected an "
                          "optimizer of torch", CHECK_PLUGIN)
    own = [[id(value) for value in group["params"]] for group in optimizer.param_groups]
    if own != expected:
        lost = len({one for group in expected for one in group}
                   - {one for group in own for one in group})
        raise PluginError(
            f"{who} does not have the parameter groups that it was given, so that "
            + (f"{lost} weights are not trained" if lost else
               "their learning rates and weight decays are lost"), CHECK_PLUGIN)
    return optimizer
