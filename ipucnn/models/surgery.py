"""Changes to a built model that keep the names and shapes of its state dictionary.

The order is: norm layers, residual zero-init, weights, input padding, pipeline splits, precision,
full-precision norms, recompute points, normalisation on the device. Splits and recompute points
are found by `ipucnn.models.tracing`, normalisation is in `ipucnn.data.normalisation`; both can be
imported from here as well.
"""

from __future__ import annotations

from itertools import chain
from math import gcd
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from torch import nn

from ipucnn.core.errors import PluginError, UsageError
from ipucnn.data.normalisation import normalise, normalise_on_device
from ipucnn.models.norms import NormSite
from ipucnn.models.tracing import count, execution_order, recompute_points, resolve_splits

__all__ = [
    "NormSite",
    "convert",
    "count",
    "execution_order",
    "full_precision_norms",
    "normalise",
    "normalise_on_device",
    "pad_input_channels",
    "recompute_points",
    "replace_norms",
    "resolve_splits",
    "zero_init_residual",
]

NormFactory = Callable[[NormSite], nn.Module]

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
PADDED_CHANNELS = 4


def replace_norms(model: nn.Module, factory: NormFactory) -> List[str]:
    """Replace every batch norm by the layer that `factory` returns for its site.

    Matching state of the old layer (the weight and bias of a group norm), its name, training flag,
    type and device are kept, and so are layers within it: an activation that it applies to what it
    has normalised.

    Returns:
        The paths of the replaced layers.

    Raises:
        UsageError: a layer cannot be created with these options; the model is then unchanged.
    """
    old = {name: module for name, module in model.named_modules()
           if isinstance(module, nn.BatchNorm2d)}
    common = 0
    for norm in old.values():
        common = gcd(common, norm.num_features)
    new = {}
    for name, norm in old.items():
        site = NormSite(name.replace(".", "/"), norm.num_features, norm.eps, norm.momentum,
                        norm.affine, norm.track_running_stats, common)
        new[name] = factory(site)
        if not isinstance(new[name], nn.Module):
            raise PluginError(f"the norm layer's target returned {new[name]!r}, expected a module")
    for name, layer in new.items():
        _take_over(layer, old[name], model)
        _append(layer, old[name])
        _set_submodule(model, name, layer)
    return [name.replace(".", "/") for name in old]


def _take_over(layer: nn.Module, norm: nn.Module, model: nn.Module) -> None:
    example = next(chain(norm.parameters(), norm.buffers(), model.parameters()), None)
    if example is not None:
        layer.to(device=example.device, dtype=example.dtype)
    wanted, state = layer.state_dict(), norm.state_dict()
    layer.load_state_dict({name: value for name, value in state.items()
                           if name in wanted and wanted[name].shape == value.shape}, strict=False)
    for new, old in zip(layer.parameters(), norm.parameters()):
        new.requires_grad_(old.requires_grad)
    layer.train(norm.training)


def _append(layer: nn.Module, norm: nn.Module) -> None:
    """Let `layer` call the modules within `norm`, as timm's `BatchNormAct2d` has them.

    They are called in their order after the layer itself. They keep their names, so that the state
    dictionary stays the same.
    """
    inner = dict(norm.named_children())
    if inner and not isinstance(layer, type(norm)):
        for name, module in inner.items():
            layer.add_module(name, module)
        layer.register_forward_hook(_Then(tuple(inner)))


class _Then:
    """A hook that calls modules of a layer on its output; not a closure, so that it is copied."""

    def __init__(self, names: Tuple[str, ...]) -> None:
        self.names = names

    def __call__(self, layer: nn.Module, _: Any, output: torch.Tensor) -> torch.Tensor:
        for name in self.names:
            output = layer._modules[name](output)  # type: ignore[misc]
        return output


def _set_submodule(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def zero_init_residual(model: nn.Module) -> List[str]:
    """Zero one norm weight of every residual block, to simplify the blocks at the start.

    It is the norm of the shortcut in a block that has a convolution there, and the last norm of
    the residual branch in the others, as in the reference applications (not the more usual last
    norm of every block). A norm without a weight is skipped.

    Returns:
        The paths of the layers whose weight was zeroed.
    """
    zeroed = []
    for prefix, branch, shortcut in _residual_blocks(model):
        found = _last_norm(shortcut) if shortcut and any(
            isinstance(module, nn.Conv2d) for _, module in shortcut) else _last_norm(branch)
        if found:
            nn.init.zeros_(found[1].weight)  # type: ignore[arg-type]
            zeroed.append(f"{prefix}.{found[0]}".lstrip(".").replace(".", "/"))
    return zeroed


_Named = List[Tuple[str, nn.Module]]


def _residual_blocks(model: nn.Module) -> Iterator[Tuple[str, _Named, _Named]]:
    """Yield (path, modules of the branch, modules of the shortcut) of every residual block.

    torchvision's blocks name the shortcut `downsample`; in those converted from Torch 7 a
    two-way `LambdaMap` holds the branch and the shortcut.
    """
    for name, module in model.named_modules():
        inner = list(module.named_modules())[1:]
        if hasattr(module, "downsample"):
            shortcut = [item for item in inner if item[0].split(".")[0] == "downsample"]
            yield name, [item for item in inner if item not in shortcut], shortcut
        elif type(module).__name__ == "LambdaMap" and len(module._modules) == 2:
            ways = list(module._modules)
            yield (name, [item for item in inner if item[0].split(".")[0] == ways[0]],
                   [item for item in inner if item[0].split(".")[0] == ways[1]])


def _last_norm(modules: _Named) -> Optional[Tuple[str, nn.Module]]:
    """Return the last layer with a weight per channel, which is a norm of any kind."""
    for name, module in reversed(modules):
        weight = getattr(module, "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() == 1:
            return name, module
    return None


def convert(model: nn.Module, dtype: torch.dtype, norms: bool = True) -> None:
    """Convert a model to a floating type, except for running statistics, which keep theirs.

    In half precision, a variance above 65504 is infinite, and small changes are lost. Source:
    PopTorch user guide, "16-bit float migration".

    Args:
        model: changed in place.
        dtype: the type.
        norms: whether to convert norm layers, too.
    """
    for module in model.modules():
        if not norms and isinstance(module, _NORMS):
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
        if isinstance(module, nn.modules.batchnorm._NormBase):
            continue
        for name, value in module.named_buffers(recurse=False):
            if value.is_floating_point():
                module._buffers[name] = value.to(dtype)


def full_precision_norms(model: nn.Module, dtype: torch.dtype) -> List[str]:
    """Make the norm layers of a half-precision model compute in single precision.

    Their input is cast to float32, and their output to the type of the other layers.

    Args:
        model: changed in place.
        dtype: the type in which the other layers compute.

    Returns:
        The paths of the norm layers.
    """
    names = []
    for name, module in model.named_modules():
        if isinstance(module, _NORMS):
            module.float()
            module.register_forward_pre_hook(_Cast(torch.float32).before)
            module.register_forward_hook(_Cast(dtype).after)
            names.append(name.replace(".", "/"))
    return names


class _Cast:
    """Hooks that cast a layer's input or output; not closures, so that models can be copied."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def before(self, _: nn.Module, inputs: Tuple[torch.Tensor, ...]) -> Tuple[torch.Tensor, ...]:
        return tuple(value.to(self.dtype) for value in inputs)

    def after(self, _: nn.Module, __: Any, output: torch.Tensor) -> torch.Tensor:
        return output.to(self.dtype)


def pad_input_channels(model: nn.Module) -> str:
    """Make the first convolution read four channels, the last of them zero.

    Some devices compute that faster. Outputs are unchanged, images keep three channels, and the
    state dictionary keeps the three-channel weight: it is truncated when saved and padded when
    loaded.

    Returns:
        The path of the convolution.

    Raises:
        UsageError: the model has no convolution of three channels.
    """
    name, conv = next(((name, module) for name, module in model.named_modules()
                       if isinstance(module, nn.Conv2d) and module.in_channels == 3
                       and module.groups == 1), ("", None))
    if conv is None:
        raise UsageError("option '--input-image-padding': the model has no convolution of three "
                         "channels", "leave the option out")
    weight = conv.weight
    conv.in_channels = PADDED_CHANNELS
    conv.weight = nn.Parameter(_padded(weight.detach()), requires_grad=weight.requires_grad)
    conv.register_forward_pre_hook(_pad_input)
    conv._register_state_dict_hook(_cut_saved)  # type: ignore[no-untyped-call]
    conv._register_load_state_dict_pre_hook(_pad_loaded)  # type: ignore[no-untyped-call]
    return name.replace(".", "/")


def _padded(tensor: torch.Tensor) -> torch.Tensor:
    """Return `(n, 3, h, w)` padded with zero channels."""
    return nn.functional.pad(tensor, (0, 0, 0, 0, 0, PADDED_CHANNELS - tensor.shape[1]))


def _pad_input(_: nn.Module, inputs: Tuple[torch.Tensor, ...]) -> Tuple[torch.Tensor, ...]:
    return (_padded(inputs[0]), *inputs[1:])


def _cut_saved(_: nn.Module, state: Dict[str, Any], prefix: str, __: Any) -> None:
    weight = state[prefix + "weight"]
    # with `keep_vars` it is the parameter itself, by which PopTorch and others recognise it
    if not isinstance(weight, nn.Parameter):
        state[prefix + "weight"] = weight[:, :3]


def _pad_loaded(state: Dict[str, Any], prefix: str, *_: Any) -> None:
    weight = state.get(prefix + "weight")
    if weight is not None and weight.dim() == 4 and weight.shape[1] == 3:
        state[prefix + "weight"] = _padded(weight)
