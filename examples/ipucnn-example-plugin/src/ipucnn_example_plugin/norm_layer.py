"""The norm layer; imported when a model is given it."""

from torch import nn


def build(site, options):
    """Return the layer that takes the place of the batch norm at `site`.

    Args:
        site: the layer's name, channels and own epsilon (`ipucnn.plugin.NormSite`).
        options: the epsilon (`options.InstanceNormOptions`).
    """
    eps = site.eps if options.norm_eps is None else options.norm_eps
    return nn.InstanceNorm2d(site.channels, eps=eps, affine=site.affine)
