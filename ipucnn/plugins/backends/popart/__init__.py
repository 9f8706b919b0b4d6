"""The `popart` backend: Graphcore IPUs through PopART, from ONNX graphs."""

from __future__ import annotations

from typing import List

from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import BackendSpec

# No package index has Graphcore's PopART: it comes with the SDK only.
INSTALL = ("PopART comes only with Graphcore's Poplar SDK (3.3 and 3.4: Python 3.8): source the "
           "enable.sh scripts of its popart and poplar folders")


@hookimpl
def ipucnn_backends() -> List[BackendSpec]:
    """Return the record of the `popart` backend."""
    return [BackendSpec(
        name="popart", device="IPU",
        summary="Graphcore IPUs through PopART of the Poplar SDK 3.3 or 3.4",
        target="ipucnn.plugins.backends.popart.engine:PopArtBackend",
        requires=(Requirement("popart", INSTALL, "the Poplar SDK"),
                  Requirement("onnx", "pip install onnx")),
        inference=True, training=True, precisions=("16.16", "16.32", "32.32"),
        checks="ipucnn.plugins.backends._ipu.checks:check_sdk",
        rules="ipucnn.plugins.backends.popart.recomputation:popart_rules",
        options="ipucnn.plugins.backends.popart.options:PopArtOptions",
        features=("accumulation-sum", "compile-only", "recompute", "sharding"),
        onnx="ipucnn.plugins.backends.popart.operators:TARGET", preference=25)]
