"""The conformance suites of ipucnn, three lines each."""

from ipucnn.testing import (
    BackendSuite,
    DatasetSuite,
    ModelSuite,
    NormLayerSuite,
    OptimizerSuite,
    ScheduleSuite,
)


class TestTinyNet(ModelSuite):
    name = "ipucnn-example-plugin:tinynet"


class TestStripes(DatasetSuite):
    name = "ipucnn-example-plugin:stripes"


class TestInstanceNorm(NormLayerSuite):
    name = "ipucnn-example-plugin:instance"


class TestSignSGD(OptimizerSuite):
    name = "ipucnn-example-plugin:signsgd"


class TestTriangular(ScheduleSuite):
    name = "ipucnn-example-plugin:triangular"


class TestReference(BackendSuite):
    name = "ipucnn-example-plugin:reference"
