"""EfficientNet B0 to B7, from efficientnet_pytorch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import gcd
from typing import TYPE_CHECKING, List, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import option
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ModelSpec, PublishedWeights

if TYPE_CHECKING:
    import torch

# (input size, first digits of the file's SHA-256, top-1 by the library's README)
_VARIANTS = {
    "b0": (224, "355c32eb", 76.3),
    "b1": (240, "f1951068", 78.8),
    "b2": (260, "8bb594d6", 79.8),
    "b3": (300, "5fb5a3c3", 81.1),
    "b4": (380, "6ed6700e", 82.6),
    "b5": (456, "b6417697", 83.3),
    "b6": (528, "c76e70fd", 84.0),
    "b7": (600, "dcc49843", 84.4),
}
_CROP_PADDING = 32
"""Pixels by which the resized image exceeds the input, in the evaluation of the original weights
(Tan and Le's TensorFlow code, from which the library converted them)."""

_RELEASE = "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/"


@dataclass(frozen=True)
class EfficientNetOptions:
    """Options of EfficientNet (Tan and Le, 2019)."""

    efficientnet_expand_ratio: Optional[int] = option(
        None, "Expansion ratio of the blocks after the first group, whose ratio is 1 (default: 6, "
        "as in the paper).", minimum=1, maximum=64, fixed="model")
    efficientnet_group_dim: Optional[int] = option(
        None, "Channels per group of the depthwise convolutions (default: 1, as in the paper).",
        minimum=1, maximum=4096, fixed="model")


def build(name: str, num_classes: int, options: EfficientNetOptions) -> torch.nn.Module:
    """Return an EfficientNet with random weights, for images of the variant's own size.

    Args:
        name: the variant in the library's spelling, `efficientnet-b0`.
        num_classes: outputs of the last layer.
        options: the expansion holds for every group of blocks but the first; a layer with fewer
            channels than a group of the depthwise convolutions gets one group.

    Raises:
        UsageError: a layer's channels cannot be divided into such groups.
    """
    from efficientnet_pytorch import EfficientNet
    from efficientnet_pytorch.utils import get_model_params

    blocks, parameters = get_model_params(name, {"num_classes": num_classes})
    if options.efficientnet_expand_ratio is not None:
        blocks = [blocks[0]] + [block._replace(expand_ratio=options.efficientnet_expand_ratio)
                                for block in blocks[1:]]
    model: torch.nn.Module = EfficientNet(blocks, parameters)
    # The memory-efficient swish is an autograd function, which can neither be compiled nor exported
    model.set_swish(memory_efficient=False)  # type: ignore[operator]
    if options.efficientnet_group_dim not in (None, 1):
        _group_depthwise(model, options.efficientnet_group_dim)
    _initialise(model)
    return model


def _initialise(model: torch.nn.Module) -> None:
    """Draw random weights as the old training application did.

    Convolutions: He et al., "Delving Deep into Rectifiers" (2015), by fan-out; linear layers:
    uniform after Glorot and Bengio, "Understanding the difficulty of training deep feedforward
    neural networks" (2010). Biases keep the library's values.
    """
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(module.weight)


def _group_depthwise(model: torch.nn.Module, group_dim: int) -> None:
    import torch

    depthwise = {name: module for name, module in model.named_modules()
                 if name.endswith("._depthwise_conv") and isinstance(module, torch.nn.Conv2d)}
    common = 0
    for name, conv in depthwise.items():
        common = gcd(common, conv.in_channels)
        if conv.in_channels % max(conv.in_channels // group_dim, 1):
            suitable = [d for d in range(1, common + 1) if all(
                c.in_channels % d == 0 for c in depthwise.values())]
            raise UsageError(
                f"option '--efficientnet-group-dim': {group_dim} does not suit layer "
                f"'{name.replace('.', '/')}', whose {conv.in_channels} channels would make "
                f"{conv.in_channels // group_dim} unequal groups",
                "values that divide the channels of all layers: " + ", ".join(map(str, suitable)))
    for conv in depthwise.values():
        conv.groups = max(conv.in_channels // group_dim, 1)
        shape = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size)
        conv.weight = torch.nn.Parameter(torch.empty(shape))


@hookimpl
def ipucnn_models() -> List[ModelSpec]:
    """Return the records of EfficientNets of eight sizes."""
    return [_record(variant) for variant in _VARIANTS]


def _record(variant: str) -> ModelSpec:
    size, digest, top1 = _VARIANTS[variant]
    name = f"efficientnet-{variant}"
    return ModelSpec(
        name=name, aliases=(f"efficientnet{variant}",),
        summary=f"EfficientNet {variant.upper()}, for images of {size} pixels",
        target=partial(build, name), family="efficientnet",
        preprocessing=Preprocessing(size, crop_fraction=size / (size + _CROP_PADDING),
                                    interpolation="bicubic"),
        source="efficientnet_pytorch",
        options=EfficientNetOptions,
        requires=(Requirement("efficientnet_pytorch", "pip install efficientnet-pytorch"),),
        weights=(PublishedWeights(
            tag="imagenet", url=f"{_RELEASE}{name}-{digest}.pth", sha256=digest,
            licence="Apache-2.0", source="efficientnet_pytorch", top1=top1),))
