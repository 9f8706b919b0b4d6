"""Group normalisation: independent of the batch size."""

from __future__ import annotations

from typing import TYPE_CHECKING, List

from ipucnn.core.errors import UsageError
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import NormLayerSpec
from ipucnn.models.norms import NormOptions, NormSite

if TYPE_CHECKING:
    import torch


def group(site: NormSite, options: NormOptions) -> torch.nn.Module:
    """Return group norm with the epsilon of the layer it stands for unless another is given.

    Raises:
        UsageError: the groups do not divide the channels.
    """
    import torch

    if site.channels % options.groups:
        common = site.common_channels
        suitable = [str(n) for n in range(1, common + 1) if common % n == 0]
        raise UsageError(
            f"{options.groups} groups do not divide the {site.channels} channels of layer "
            f"{site.name!r}",
            "group counts that suit all layers of the model: " + ", ".join(suitable))
    eps = site.eps if options.eps is None else options.eps
    return torch.nn.GroupNorm(options.groups, site.channels, eps, site.affine)


@hookimpl
def ipucnn_norm_layers() -> List[NormLayerSpec]:
    """Group norm."""
    return [NormLayerSpec(
        name="group", summary="group norm, independent of the batch size",
        target="ipucnn.plugins.norm_layers.group:group", aliases=("groupnorm",),
        options=("groups", "eps"))]
