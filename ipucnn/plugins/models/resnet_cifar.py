"""ResNets for images of 32 pixels: those of the paper, and the larger ones with a small stem."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Callable, List

from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ModelSpec
from ipucnn.plugins.models._torchvision import build

if TYPE_CHECKING:
    import torch

    from ipucnn.plugins.models._options import ResidualOptions

_LAYERS = (8, 14, 20, 32, 44, 56, 110)
_LARGER = {"ResNet18": "resnet18", "ResNet34": "resnet34", "ResNet50": "resnet50",
           "ResNet101": "resnet101", "ResNet152": "resnet152", "ResNeXt50": "resnext50_32x4d"}


def build_small(layers: int, num_classes: int, options: ResidualOptions) -> torch.nn.Module:
    """Return a network of 6n+2 layers with random weights.

    Args:
        layers: 6n+2.
        num_classes: outputs of the last layer.
        options: shortcuts are of type A when none is given, as in the paper.
    """
    from ipucnn.plugins.models._residual import CifarResNet, set_shortcuts

    model = CifarResNet((layers - 2) // 6, num_classes)
    set_shortcuts(model, options.shortcut_type or "A")
    return model


def build_larger(constructor: str, num_classes: int,
                 options: ResidualOptions) -> torch.nn.Module:
    """Return a torchvision network with random weights whose stem keeps the resolution."""
    from ipucnn.plugins.models._residual import keep_resolution

    model = build(constructor, num_classes, options)
    keep_resolution(model)
    return model


@hookimpl
def ipucnn_models() -> List[ModelSpec]:
    """Return the records of ResNets for small images.

    Source of the smallest ones: He et al., "Deep Residual Learning for Image Recognition" (2015),
    section 4.2.
    """
    return [
        *(_record(f"ResNet{layers}", partial(build_small, layers)) for layers in _LAYERS),
        *(_record(name, partial(build_larger, constructor))
          for name, constructor in _LARGER.items())]


def _record(name: str, target: Callable[..., torch.nn.Module]) -> ModelSpec:
    return ModelSpec(
        name=f"{name.lower()}-cifar", summary=f"{name} for images of 32 pixels", target=target,
        family="resnet-cifar", num_classes=10, source="torchvision",
        preprocessing=Preprocessing(32, crop_fraction=1.0),
        options="ipucnn.plugins.models._options:ResidualOptions", zero_init_residual=True)
