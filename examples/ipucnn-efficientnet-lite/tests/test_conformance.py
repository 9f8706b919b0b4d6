"""The conformance suite of ipucnn."""

from ipucnn.testing import ModelSuite


class TestEfficientNetLite0(ModelSuite):
    name = "ipucnn-efficientnet-lite:efficientnet-lite0"
    input_size = 64
