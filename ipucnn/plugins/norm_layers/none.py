"""No normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, List

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import NormLayerSpec
from ipucnn.models.norms import NormSite

if TYPE_CHECKING:
    import torch


def none(site: NormSite) -> torch.nn.Module:  # noqa: ARG001 - the contract
    """Return a layer that passes its input on."""
    import torch

    return torch.nn.Identity()


@hookimpl
def ipucnn_norm_layers() -> List[NormLayerSpec]:
    """Return the record of the norm layer `none`."""
    return [NormLayerSpec(name="none", summary="no normalisation",
                          target="ipucnn.plugins.norm_layers.none:none", aliases=("identity",))]
