"""The `ncnn` backend: inference with ncnn on CPUs."""

from __future__ import annotations

from typing import List

from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import BackendSpec

INSTALL = "pip install 'ipucnn[ncnn]'"


@hookimpl
def ipucnn_backends() -> List[BackendSpec]:
    """Return the record of the `ncnn` backend."""
    return [BackendSpec(
        name="ncnn", device="CPU", summary="ncnn on CPUs",
        target="ipucnn.plugins.backends.ncnn.engine:NcnnBackend",
        requires=(Requirement("ncnn", INSTALL), Requirement("onnx", INSTALL)),
        inference=True, instances=True, precisions=("32.32",), pipelining=False, mixup=False,
        features=("batch-size-auto",), options="ipucnn.plugins.backends.ncnn.options:NcnnOptions",
        onnx="ipucnn.plugins.backends.ncnn.target:TARGET",
        preference=5)]
