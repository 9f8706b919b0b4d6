"""Builds PopART session options from a plan and the backend's options."""

from __future__ import annotations

from typing import Any

import popart

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.files import trusted_folder
from ipucnn.plugins.backends._ipu.settings import PROFILE_FOLDER
from ipucnn.plugins.backends.popart.options import PopArtOptions
from ipucnn.plugins.backends.popart.transfers import BUFFERS


def session_options(plan: ExecutionPlan, chosen: PopArtOptions) -> Any:
    """Return the `popart.SessionOptions` that inference and training have in common.

    Raises:
        UsageError: the folder of `--model-cache-path` cannot be made, or is open to others.
    """
    options = popart.SessionOptions()
    _set_devices(options, plan)
    _set_arithmetic(options, plan, chosen)
    _set_transfers(options, plan, chosen)
    _set_engine(options, chosen)
    return options


def inference_options(plan: ExecutionPlan, chosen: PopArtOptions) -> Any:
    """Return the `popart.SessionOptions` of an inference plan.

    Raises:
        UsageError: the folder of `--model-cache-path` cannot be made, or is open to others.
    """
    options = session_options(plan, chosen)
    # variables can be replaced, so a cached program can be used with other weights
    options.constantWeights = False
    if chosen.report_hw_cycle_count:
        options.instrumentWithHardwareCycleCounter = True
    return options


def _set_devices(options: Any, plan: ExecutionPlan) -> None:
    if plan.local_replicas > 1:
        options.enableReplicatedGraphs = True
        options.replicatedGraphCount = plan.local_replicas
    if plan.stages > 1:
        options.enablePipelining = plan.pipelined
        options.virtualGraphMode = popart.VirtualGraphMode.Manual


def _set_arithmetic(options: Any, plan: ExecutionPlan, chosen: PopArtOptions) -> None:
    if chosen.half_partial and plan.half:  # its effect in single precision is not documented
        options.convolutionOptions = {"partialsType": "half"}
        options.partialsTypeMatMuls = "half"
    if chosen.enable_fast_groupnorm:
        options.groupNormStridedChannelGrouping = True


def _set_transfers(options: Any, plan: ExecutionPlan, chosen: PopArtOptions) -> None:
    if plan.synthetic:
        options.syntheticDataMode = popart.SyntheticDataMode.RandomNormal
    depth = chosen.prefetch_depth or (BUFFERS if chosen.num_io_tiles else None)
    if depth is not None:
        options.defaultBufferingDepth = depth
    if chosen.num_io_tiles:
        # Source: PopART's `Ir::verifyOverlapIOSettings`
        options.numIOTiles = chosen.num_io_tiles
        options.virtualGraphMode = popart.VirtualGraphMode.Auto
        options.useHostCopyOps = True
        options.enableExplicitMainLoops = True


def _set_engine(options: Any, chosen: PopArtOptions) -> None:
    settings = {}
    if chosen.exchange_memory_target:
        settings["opt.internalExchangeOptimisationTarget"] = chosen.exchange_memory_target
    if chosen.profile:
        settings.update({"autoReport.all": "true", "autoReport.directory": PROFILE_FOLDER})
    if settings:
        options.engineOptions = settings
    if chosen.model_cache_path:
        options.enableEngineCaching = True
        options.cachePath = trusted_folder(chosen.model_cache_path, "--model-cache-path")
