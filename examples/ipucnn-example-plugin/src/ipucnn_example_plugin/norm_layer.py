"""The norm layer; imported when a model is built with it."""

from torch import nn


def build(site, options):
    """Return the layer that replaces the batch norm at `site`.

    Args:
        site: the name, channels and epsilon of the batch norm (`ipucnn.plugin.NormSite`).
        options: the epsilon, or None for that of the batch norm (`options.InstanceNormOptions`).
    """
    eps = site.eps if options.norm_eps is None else options.norm_eps
    return nn.InstanceNorm2d(site.channels, eps=eps, affine=site.affine)
