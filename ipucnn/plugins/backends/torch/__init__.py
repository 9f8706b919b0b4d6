"""The `torch` backend: the reference executor, on CPU and CUDA."""

from __future__ import annotations

from typing import List

from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import BackendSpec
from ipucnn.plugins.backends._gpus import may_have_gpu


@hookimpl
def ipucnn_backends() -> List[BackendSpec]:
    """Return the record of the `torch` backend."""
    return [BackendSpec(
        name="torch", aliases=("pytorch",), device="CPU, CUDA",
        summary="PyTorch on CPUs and GPUs",
        target="ipucnn.plugins.backends.torch.engine:TorchBackend",
        requires=(Requirement("torch", "pip install torch torchvision"),),
        inference=True, training=True, instances=True,
        precisions=("16.16", "16.32", "32.32"),
        options="ipucnn.plugins.backends.torch.options:TorchOptions",
        features=("accumulation-sum", "batch-size-auto", "compile-only", "ema", "fine-tuning",
                  "full-precision-norm", "multi-label", "recompute", "sharding", "stage-processes"),
        # above all engines for CPUs where there is a GPU; `engine` has those of CPUs
        preference=27, foreseen="ipucnn.plugins.backends.torch:foreseen")]


def foreseen() -> int:
    """Return the highest preference on this machine; see `BackendSpec.foreseen`."""
    return 27 if may_have_gpu() else 17
