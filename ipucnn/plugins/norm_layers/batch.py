"""Batch normalisation: the layer that every built-in model was designed with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, List, Optional

from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import NormLayerSpec
from ipucnn.models.norms import NormSite
from ipucnn.plugins.norm_layers._options import EpsilonOption

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class BatchNormOptions(EpsilonOption):
    """Options of batch normalisation."""

    batchnorm_momentum: Optional[float] = option(
        None, "Momentum of batch norm's running statistics (default: the model's own).",
        exclusive_minimum=0.0, maximum=1.0, fixed="model")


def batch(site: NormSite, options: BatchNormOptions) -> torch.nn.Module:
    """Return batch norm with the model's own epsilon and momentum unless others are given."""
    import torch

    momentum = site.momentum if options.batchnorm_momentum is None else options.batchnorm_momentum
    eps = site.eps if options.norm_eps is None else options.norm_eps
    return torch.nn.BatchNorm2d(site.channels, eps, momentum, site.affine,
                                site.running_statistics)


@hookimpl
def ipucnn_norm_layers() -> List[NormLayerSpec]:
    """Return the record of the norm layer `batch`."""
    return [NormLayerSpec(
        name="batch", summary="batch norm, over the micro-batch of each replica",
        target="ipucnn.plugins.norm_layers.batch:batch", aliases=("batchnorm",),
        batch_dependent=True, options=BatchNormOptions)]
