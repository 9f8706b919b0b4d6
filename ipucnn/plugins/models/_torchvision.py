"""Records and builders of torchvision's networks. It is not a plugin; it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Optional, Tuple

from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.records import ModelSpec, PublishedWeights

if TYPE_CHECKING:
    import torch

    from ipucnn.plugins.models._options import ResidualOptions

# (file name, top-1, top-5), as torchvision's weight enumerations state them
Published = Tuple[str, float, float]


def build(constructor: str, num_classes: int,
          options: Optional[ResidualOptions] = None) -> torch.nn.Module:
    """Return `torchvision.models.<constructor>` with random weights.

    Args:
        constructor: its name in `torchvision.models`.
        num_classes: outputs of the last layer.
        options: of residual networks; shortcuts of type B are torchvision's own.
    """
    import torchvision

    model: torch.nn.Module = getattr(torchvision.models, constructor)(
        weights=None, num_classes=num_classes)
    if options and options.shortcut_type not in (None, "B"):
        from ipucnn.plugins.models._residual import set_shortcuts

        set_shortcuts(model, str(options.shortcut_type))
    return model


@dataclass(frozen=True)
class Network:
    """A network of torchvision.

    Attributes:
        constructor: its name in `torchvision.models`.
        v1: the IMAGENET1K_V1 weights, the default: the reference applications published results
            for them.
        v2: the IMAGENET1K_V2 weights, of a longer training recipe.
        residual: it consists of torchvision's residual blocks.
    """

    constructor: str
    v1: Published
    v2: Optional[Published] = None
    residual: bool = False


def model(name: str, summary: str, family: str, network: Network,
          aliases: Tuple[str, ...] = ()) -> ModelSpec:
    """Return the record of a torchvision model.

    Args:
        name: the model's name here.
        summary: one line for listings.
        family: the group in listings.
        network: the network and its published weights.
        aliases: other spellings.
    """
    residual = network.residual
    return ModelSpec(
        name=name, summary=summary, target=partial(build, network.constructor), aliases=aliases,
        family=family, source="torchvision", zero_init_residual=residual,
        options="ipucnn.plugins.models._options:ResidualOptions" if residual else None,
        preprocessing=Preprocessing(),
        weights=tuple(_published(tag, *entry)
                      for tag, entry in (("v1", network.v1), ("v2", network.v2)) if entry))


# torchvision's documentation of the weights: V1 images are resized to 256 pixels, V2 ones to 232
_PREPROCESSING = {"v1": Preprocessing(), "v2": Preprocessing(crop_fraction=224 / 232)}


def _published(tag: str, file_name: str, top1: float, top5: float) -> PublishedWeights:
    return PublishedWeights(
        tag=tag, url=f"https://download.pytorch.org/models/{file_name}",
        sha256=file_name.rpartition("-")[2].partition(".")[0], licence="BSD-3-Clause",
        source="torchvision", top1=top1, top5=top5, preprocessing=_PREPROCESSING[tag])
