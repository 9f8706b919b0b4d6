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


@hookimpl
def ipucnn_models():
    """Return the network."""
    return [ModelSpec(name="tiny", summary="two convolutions", target=build, family="tiny",
                      input_size=16, source="the tests")]
