"""A plan's values as PopTorch options: every setting and the call behind it."""

from __future__ import annotations

import sys
from typing import Any, Tuple

import poptorch
import torch  # noqa: TID253

from ipucnn.core.execution import ExecutionPlan
from ipucnn.core.files import make_folder

PROFILE_FOLDER = "poplar-profile"
"""Where `--profile` writes, in the working folder; PopVision Graph Analyser opens it."""

_IO_BUFFERS = 3


def inference_options(plan: ExecutionPlan) -> Any:
    """Return the `poptorch.Options` of an inference plan.

    Raises:
        UsageError: the folder of `--model-cache-path` cannot be made.
    """
    options = poptorch.Options()
    options.deviceIterations(plan.device_iterations)
    options.replicationFactor(plan.replicas)
    options.outputMode(poptorch.OutputMode.All)
    options.enableSyntheticData(plan.synthetic)
    options.showCompilationProgressBar(sys.stderr.isatty())
    if plan.seed is not None:
        options.randomSeed(plan.seed)
    if plan.replicas > 1:
        # PopTorch refuses to replicate a model with buffers that change in place otherwise
        options.broadcastBuffers(False)
    _set_target(options, plan)
    _set_memory(options, plan)
    _set_arithmetic(options, plan)
    _set_transfers(options, plan)
    _set_engine(options, plan)
    return options


def _set_target(options: Any, plan: ExecutionPlan) -> None:
    version = plan.option("offline_target_ipu_version")
    if version is not None:
        options.useOfflineIpuTarget(version)
    cache = plan.option("model_cache_path")
    if cache:
        options.enableExecutableCaching(make_folder(cache, "--model-cache-path"))


def _set_memory(options: Any, plan: ExecutionPlan) -> None:
    shares: Tuple[float, ...] = plan.option("available_memory_proportion", ())
    if len(shares) == 1:
        shares = shares * plan.stages
    if shares:
        # there is one IPU per stage, and replicas repeat them
        options.setAvailableMemoryProportion(
            {f"IPU{stage}": share for stage, share in enumerate(shares)})


def _set_arithmetic(options: Any, plan: ExecutionPlan) -> None:
    if plan.option("half_partial"):
        options.Precision.setPartialsType(torch.float16)
    if plan.option("enable_fast_groupnorm"):
        options._Popart.set("groupNormStridedChannelGrouping", True)


def _set_transfers(options: Any, plan: ExecutionPlan) -> None:
    """Set tiles aside for transfers; the session marks the tensors that are to overlap.

    Source: PopTorch user guide, "Efficient IPU I/O", which also says that it needs this strategy.
    """
    tiles = plan.option("num_io_tiles", 0)
    if tiles:
        options.TensorLocations.numIOTiles(tiles)
        options.setExecutionStrategy(poptorch.ShardedExecution())
        options._Popart.set("defaultPrefetchBufferingDepth", _IO_BUFFERS)


def _set_engine(options: Any, plan: ExecutionPlan) -> None:
    # `setEngineOptions` replaces all that was set before and `enableProfiling` adds to it, so the
    # order matters
    target = plan.option("exchange_memory_target")
    if target:
        options._Popart.setEngineOptions({"opt.internalExchangeOptimisationTarget": target})
    if plan.option("profile"):
        options.enableProfiling(PROFILE_FOLDER)
