"""The `onnxruntime` backend: inference with ONNX Runtime on CPU and CUDA."""

from __future__ import annotations

from typing import List

from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import BackendSpec

INSTALL = "pip install 'ipucnn[onnxruntime]'"


@hookimpl
def ipucnn_backends() -> List[BackendSpec]:
    """Return the record of the `onnxruntime` backend."""
    return [BackendSpec(
        name="onnxruntime", aliases=("ort",), device="CPU, CUDA",
        summary="ONNX Runtime on CPUs and GPUs",
        target="ipucnn.plugins.backends.onnxruntime.engine:OnnxRuntimeBackend",
        requires=(Requirement("onnxruntime", INSTALL), Requirement("onnx", INSTALL)),
        inference=True, instances=True, precisions=("16.16", "32.32"), pipelining=False,
        mixup=False, features=("batch-size-auto",),
        options="ipucnn.plugins.backends.onnxruntime.options:OnnxRuntimeOptions",
        onnx="ipucnn.plugins.backends.onnxruntime.target:TARGET",
        preference=26)]
