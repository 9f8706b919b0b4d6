"""The conformance suite of ipucnn, for small networks of several kinds."""

from ipucnn.testing import ModelSuite


class TestResidual(ModelSuite):
    name = "ipucnn-timm:timm/test_resnet"
    input_size = 64


class TestEfficient(ModelSuite):
    name = "ipucnn-timm:timm/test_efficientnet"
    input_size = 64
    options = {"drop_path": 0.1}


class TestTransformer(ModelSuite):
    name = "ipucnn-timm:timm/test_vit"


class TestConvnext(ModelSuite):
    name = "ipucnn-timm:timm/test_convnext"
    input_size = 64
