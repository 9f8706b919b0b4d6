"""Group normalisation: independent of the batch size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, List

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import NormLayerSpec
from ipucnn.models.norms import NormSite
from ipucnn.plugins.norm_layers._options import EpsilonOption

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class GroupNormOptions(EpsilonOption):
    """Options of group normalisation (Wu and He, 2018)."""

    groupnorm_group_num: int = option(
        32, "Number of groups of group normalisation.", minimum=1,
        names=("--norm-num-groups", "--norm-groups"), fixed="model")


def group(site: NormSite, options: GroupNormOptions) -> torch.nn.Module:
    """Return group norm with the epsilon of the replaced layer unless another is given.

    Raises:
        UsageError: the groups do not divide the channels.
    """
    import torch

    groups = options.groupnorm_group_num
    if site.channels % groups:
        common = site.common_channels
        suitable = [str(n) for n in range(1, common + 1) if common % n == 0]
        raise UsageError(
            f"{groups} groups do not divide the {site.channels} channels of layer "
            f"{site.name!r}",
            "group counts that suit all layers of the model: " + ", ".join(suitable))
    eps = site.eps if options.norm_eps is None else options.norm_eps
    return torch.nn.GroupNorm(groups, site.channels, eps, site.affine)


@hookimpl
def ipucnn_norm_layers() -> List[NormLayerSpec]:
    """Return the record of the norm layer `group`."""
    return [NormLayerSpec(
        name="group", summary="group norm, independent of the batch size",
        target="ipucnn.plugins.norm_layers.group:group", aliases=("groupnorm",),
        options=GroupNormOptions)]
