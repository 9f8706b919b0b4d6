"""The norm layer; imported when a model is given it."""

from torch import nn


def build(site, options):
    """Return the layer that takes the place of the batch norm at `site`.

    Args:
        site: the layer's name, channels and own epsilon (`ipucnn.models.norms.NormSite`).
        options: what the user wants (`ipucnn.models.norms.NormOptions`).
    """
    eps = site.eps if options.eps is None else options.eps
    return nn.InstanceNorm2d(site.channels, eps=eps, affine=site.affine)
