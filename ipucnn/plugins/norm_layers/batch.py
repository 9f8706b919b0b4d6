"""Batch normalisation: the layer that every built-in model was designed with."""

from __future__ import annotations

from typing import TYPE_CHECKING, List

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import NormLayerSpec
from ipucnn.models.norms import NormOptions, NormSite

if TYPE_CHECKING:
    import torch


def batch(site: NormSite, options: NormOptions) -> torch.nn.Module:
    """Return batch norm with the model's own epsilon and momentum unless others are given."""
    import torch

    momentum = site.momentum if options.momentum is None else options.momentum
    return torch.nn.BatchNorm2d(site.channels, site.eps if options.eps is None else options.eps,
                                momentum, site.affine, site.running_statistics)


@hookimpl
def ipucnn_norm_layers() -> List[NormLayerSpec]:
    """Batch norm."""
    return [NormLayerSpec(
        name="batch", summary="batch norm, over the micro-batch of each replica",
        target="ipucnn.plugins.norm_layers.batch:batch", aliases=("batchnorm",),
        batch_dependent=True, options=("eps", "momentum"))]
