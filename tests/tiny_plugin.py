"""A small network for tests that start many processes: `--plugin tests/tiny_plugin.py`."""

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import ModelSpec


def build(num_classes):
    """Return two convolutions with batch norm, and a classifier."""
    from torch import nn

    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.Conv2d(8, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)))


def build_unchecked(num_classes):
    """Return the same network without a check of its outputs, which takes seconds per process.

    For shapes of outputs without values, torch imports its compiler.
    """
    from torch import nn

    class Unchecked(nn.Sequential):
        def forward(self, images):
            if images.is_meta:
                raise NotImplementedError("the shapes of this network are not computed")
            return super().forward(images)

    return Unchecked(*build(num_classes))


@hookimpl
def ipucnn_models():
    """Return the network, and the same for runs in many processes."""
    return [ModelSpec(name=name, summary="two convolutions", target=target, family="tiny",
                      input_size=16, source="the tests")
            for name, target in (("tiny", build), ("tiny-unchecked", build_unchecked))]
