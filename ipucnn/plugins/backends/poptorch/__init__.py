"""The `poptorch` backend: Graphcore IPUs, the IPU model, and compilation for IPUs elsewhere."""

from __future__ import annotations

from typing import List

from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import BackendSpec

# No package index has PopTorch: it comes with the SDK only.
INSTALL = ("PopTorch comes only with Graphcore's Poplar SDK (3.3 and 3.4: Python 3.8, torch 2.0.1, "
           "torchvision 0.15.2): install the poptorch wheel in the SDK's folder and source the "
           "SDK's enable.sh scripts")


POPRUN = "poprun"
"""The launcher whose processes share IPUs, through PopDist."""


@hookimpl
def ipucnn_backends() -> List[BackendSpec]:
    """Return the record of the `poptorch` backend."""
    return [BackendSpec(
        name="poptorch", aliases=("ipu",), device="IPU",
        summary="Graphcore IPUs through PopTorch of the Poplar SDK 3.3 or 3.4",
        target="ipucnn.plugins.backends.poptorch.engine:PopTorchBackend",
        requires=(Requirement("poptorch", INSTALL, "the Poplar SDK"),),
        inference=True, training=True, precisions=("16.16", "16.32", "32.32"),
        checks="ipucnn.plugins.backends._ipu.checks:check_sdk",
        rules="ipucnn.plugins.backends._ipu.rules:poptorch_rules",
        options="ipucnn.plugins.backends.poptorch.options:PopTorchOptions",
        features=("accumulation-sum", "compile-only", "full-precision-norm", "recompute",
                  "sharding"),
        instances=True, preference=30)]
