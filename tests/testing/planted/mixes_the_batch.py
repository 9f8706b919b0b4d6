"""A norm layer that mixes the samples of a batch, which its record does not state."""

import ipucnn


def build(site):
    from torch import nn

    return nn.BatchNorm2d(site.channels)


@ipucnn.hookimpl
def ipucnn_norm_layers():
    return [ipucnn.NormLayerSpec(name="planted", summary="planted", target=build)]
