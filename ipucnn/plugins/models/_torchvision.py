"""What the families that come from torchvision share. It is not a plugin; it imports no torch."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Optional, Tuple

from ipucnn.core.registry.records import ModelSpec, PublishedWeights

if TYPE_CHECKING:
    import torch

# (file name, top-1, top-5), as torchvision's weight enumerations state them
Published = Tuple[str, float, float]


def build(constructor: str, num_classes: int,
          shortcut_type: Optional[str] = None) -> torch.nn.Module:
    """Return `torchvision.models.<constructor>` with random weights.

    Args:
        constructor: its name there.
        num_classes: outputs of the last layer.
        shortcut_type: A, B or C, of residual networks; B is torchvision's own.
    """
    import torchvision

    model: torch.nn.Module = getattr(torchvision.models, constructor)(
        weights=None, num_classes=num_classes)
    if shortcut_type not in (None, "B"):
        from ipucnn.plugins.models._residual import set_shortcuts

        set_shortcuts(model, str(shortcut_type))
    return model


def model(name: str, summary: str, family: str, v1: Published, v2: Optional[Published] = None, *,
          constructor: str = "", aliases: Tuple[str, ...] = (),
          residual: bool = False) -> ModelSpec:
    """Return the record of a torchvision model.

    Args:
        name: the model's name here.
        summary: one line for listings.
        family: what groups it in listings.
        v1: the IMAGENET1K_V1 weights, the default: the published results of the reference
            applications are theirs.
        v2: the IMAGENET1K_V2 weights, of a longer training recipe.
        constructor: its name in `torchvision.models` when that is another one.
        aliases: other spellings.
        residual: it consists of torchvision's residual blocks.
    """
    return ModelSpec(
        name=name, summary=summary, target=partial(build, constructor or name), aliases=aliases,
        family=family, source="torchvision", zero_init_residual=residual,
        options=("shortcut_type",) if residual else (),
        weights=tuple(_published(tag, *entry) for tag, entry in (("v1", v1), ("v2", v2)) if entry))


def _published(tag: str, file_name: str, top1: float, top5: float) -> PublishedWeights:
    return PublishedWeights(
        tag=tag, url=f"https://download.pytorch.org/models/{file_name}",
        sha256=file_name.rpartition("-")[2].partition(".")[0], licence="BSD-3-Clause",
        source="torchvision", top1=top1, top5=top5)
