"""The `popart` backend: Graphcore IPUs through PopART, from ONNX graphs."""

from __future__ import annotations

from typing import List

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import BackendSpec, Requirement

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
        requires=(Requirement("popart", INSTALL), Requirement("onnx", "pip install onnx")),
        inference=True, training=True, precisions=("16.16", "32.32"),
        options=("available_memory_proportion", "compile_only", "connection_type",
                 "enable_fast_groupnorm", "exchange_memory_target", "half_partial", "ipu_model",
                 "model_cache_path", "offline_target_ipu_version", "onnx", "prefetch_depth",
                 "profile", "report_hw_cycle_count"),
        training_options=("auto_loss_scaling", "disable_stable_batchnorm", "enable_fp_exceptions",
                          "enable_optimizer_rts", "enable_recompute",
                          "enable_stochastic_rounding", "loss_velocity_scaling_ratio",
                          "offload_optimizer", "recompute_checkpoints", "recompute_mode"),
        onnx="ipucnn.plugins.backends.popart.operators:TARGET", preference=25)]
