"""The norm layer; imported when a model receives it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipucnn.plugin import NormSite
from torch import nn

if TYPE_CHECKING:
    from ipucnn_frozen_norm.options import NormLayerOptions


def build_norm_layer(site: NormSite, options: NormLayerOptions) -> nn.Module:
    """Return the layer that takes the place of the batch norm at `site`."""
    eps = site.eps if options.frozen_norm_eps is None else options.frozen_norm_eps
    return nn.InstanceNorm2d(site.channels, eps=eps, affine=site.affine)
