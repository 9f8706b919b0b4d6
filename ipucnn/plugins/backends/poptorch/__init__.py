"""The `poptorch` backend: Graphcore IPUs, the IPU model, and compilation for IPUs elsewhere."""

from __future__ import annotations

from typing import List

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import BackendSpec, Requirement

# No package index has PopTorch: it comes with the SDK only.
INSTALL = ("PopTorch comes only with Graphcore's Poplar SDK (3.3 and 3.4: Python 3.8, torch 2.0.1, "
           "torchvision 0.15.2): install the poptorch wheel in the SDK's folder and source the "
           "SDK's enable.sh scripts")

THREADS = "threads"
LOADER_MODES = ("sync", "async", "rebatched")
"""Of `--dataloader-mode`, those of PopTorch's own loader."""
DEFAULT_REBATCH_SIZE = 1024


@hookimpl
def ipucnn_backends() -> List[BackendSpec]:
    """Return the record of the `poptorch` backend."""
    return [BackendSpec(
        name="poptorch", aliases=("ipu",), device="IPU",
        summary="Graphcore IPUs through PopTorch of the Poplar SDK 3.3 or 3.4",
        target="ipucnn.plugins.backends.poptorch.engine:PopTorchBackend",
        requires=(Requirement("poptorch", INSTALL),),
        inference=True, training=True, precisions=("16.16", "16.32", "32.32"),
        options=("available_memory_proportion", "compile_only", "connection_type",
                 "dataloader_mode", "dataloader_rebatch_size", "enable_fast_groupnorm",
                 "exchange_memory_target", "full_precision_norm", "half_partial",
                 "model_cache_path", "num_io_tiles", "offline_target_ipu_version",
                 "prefetch_depth", "profile"),
        training_options=("auto_loss_scaling", "disable_stable_batchnorm", "enable_fp_exceptions",
                          "enable_optimizer_rts", "enable_recompute",
                          "enable_stochastic_rounding", "loss_velocity_scaling_ratio",
                          "offload_optimizer", "recompute_checkpoints", "recompute_mode"),
        instances=True, preference=30)]
