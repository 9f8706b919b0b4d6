"""The `openvino` backend: inference with OpenVINO, also in 8-bit integers."""

from __future__ import annotations

from typing import List

from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import BackendSpec

INSTALL = "pip install 'ipucnn[openvino]'"


@hookimpl
def ipucnn_backends() -> List[BackendSpec]:
    """Return the record of the `openvino` backend."""
    return [BackendSpec(
        name="openvino", aliases=("ov",), device="CPU, GPU",
        summary="OpenVINO on CPUs and Intel GPUs",
        target="ipucnn.plugins.backends.openvino.engine:OpenVinoBackend",
        requires=(Requirement("openvino", INSTALL), Requirement("onnx", INSTALL)),
        inference=True, instances=True, precisions=("16.16", "32.32", "int8"),
        options="ipucnn.plugins.backends.openvino.options:OpenVinoOptions",
        features=("batch-size-auto", "compile-only"),
        pipelining=False, mixup=False, onnx="ipucnn.plugins.backends.openvino.target:TARGET",
        preference=20)]
