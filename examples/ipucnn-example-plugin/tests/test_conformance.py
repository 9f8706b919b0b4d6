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


class TestSignSGDWithMean(OptimizerSuite):
    name = "ipucnn-example-plugin:signsgd"
    options = {"signum_beta": 0.5, "sign_threshold": 1e-4}
    lr = 0.02


class TestTriangular(ScheduleSuite):
    name = "ipucnn-example-plugin:triangular"


class TestReference(BackendSuite):
    name = "ipucnn-example-plugin:reference"


class TestReferenceInDoublePrecision(BackendSuite):
    name = "ipucnn-example-plugin:reference"
    options = {"reference_arithmetic": "float64"}
