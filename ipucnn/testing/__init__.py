"""Conformance suites and helpers for plugin authors.

A suite tests a plugin with pytest::

    from ipucnn.testing import ModelSuite

    class TestTinyNet(ModelSuite):
        name = "tinynet"

or without pytest with `check_plugin("model", "tinynet")`. The built-in plugins are tested with the
same suites.
Importing this package imports neither torch nor pytest.
"""

from __future__ import annotations

from ipucnn.testing.backends import BackendSuite
from ipucnn.testing.checking import SUITES, check_distribution, check_named, check_plugin
from ipucnn.testing.datasets import DatasetSuite
from ipucnn.testing.distributions import write_distribution
from ipucnn.testing.importing import ImportSuite
from ipucnn.testing.launchers import LauncherSuite
from ipucnn.testing.loggers import LoggerSuite
from ipucnn.testing.losses import LossSuite
from ipucnn.testing.models import ModelSuite, NormLayerSuite
from ipucnn.testing.optimisation import OptimizerSuite, ScheduleSuite
from ipucnn.testing.suite import ConformanceError

__all__ = [
    "SUITES",
    "BackendSuite",
    "ConformanceError",
    "DatasetSuite",
    "ImportSuite",
    "LauncherSuite",
    "LoggerSuite",
    "LossSuite",
    "ModelSuite",
    "NormLayerSuite",
    "OptimizerSuite",
    "ScheduleSuite",
    "check_distribution",
    "check_named",
    "check_plugin",
    "write_distribution",
]
