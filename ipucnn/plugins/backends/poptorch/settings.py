"""A plan's values as PopTorch options: every setting and the call behind it."""

from __future__ import annotations

import sys
from typing import Any, Optional, Tuple

import poptorch
import torch  # noqa: TID253

from ipucnn.core.execution.instances import launched, speaks
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.files import make_folder

PROFILE_FOLDER = "poplar-profile"
"""Where `--profile` writes, in the working folder; PopVision Graph Analyser opens it."""

_IO_BUFFERS = 3


def inference_options(plan: ExecutionPlan) -> Any:
    """Return the `poptorch.Options` of an inference plan.

    Raises:
        UsageError: the folder of `--model-cache-path` cannot be made.
    """
    options = _common_options(plan)
    options.outputMode(poptorch.OutputMode.All)
    _set_transfers(options, plan)
    return options


def training_options(plan: ExecutionPlan, metrics: bool) -> Any:
    """Return the `poptorch.Options` of a training plan.

    Args:
        plan: of the training.
        metrics: whether hits are counted; see `returns_sums`.

    Raises:
        UsageError: the folder of `--model-cache-path` cannot be made.
    """
    options = _common_options(plan)
    options.outputMode(poptorch.OutputMode.Sum if returns_sums(plan, metrics)
                       else poptorch.OutputMode.Final)
    options.Training.gradientAccumulation(plan.gradient_accumulation)
    # an update is the mean over everything that it sees, whatever its shape
    options.Training.accumulationAndReplicationReductionType(poptorch.ReductionType.Mean)
    options.enableStableNorm(not plan.option("disable_stable_batchnorm", False))
    if plan.option("auto_loss_scaling"):
        options.Training.setAutomaticLossScaling(True)
    if plan.option("enable_stochastic_rounding"):
        options.Precision.enableStochasticRounding(True)
    if plan.option("enable_fp_exceptions"):
        options.Precision.enableFloatingPointExceptions(True)
    _set_recomputation(options, plan)
    _set_optimizer_state(options, plan)
    _set_transfers(options, plan)
    return options


def returns_sums(plan: ExecutionPlan, metrics: bool) -> bool:
    """Return whether a training call tells sums, or only of the last micro-batches.

    Transfers that overlap with computation bring every value or sums of them.
    """
    return metrics or bool(plan.option("num_io_tiles", 0))


def training_overlap(plan: ExecutionPlan) -> Optional[poptorch.OverlapMode]:
    """Return how far a training's transfers run ahead; None without tiles for them.

    The next micro-batch of an update is fetched early where there are several, which takes less
    memory than fetching those of the next update.
    """
    if not plan.option("num_io_tiles", 0):
        return None
    return (poptorch.OverlapMode.OverlapAccumulationLoop if plan.gradient_accumulation > 1
            else poptorch.OverlapMode.OverlapDeviceIterationLoop)


_RECOMPUTE_STANDARD, _RECOMPUTE_PIPELINE = 1, 3
"""PopART's `RecomputationType`."""


def _set_recomputation(options: Any, plan: ExecutionPlan) -> None:
    if (plan.option("recompute_mode") or "none") != "none":
        options._Popart.set("autoRecomputation", _RECOMPUTE_PIPELINE if plan.pipeline_splits
                            else _RECOMPUTE_STANDARD)


def _set_optimizer_state(options: Any, plan: ExecutionPlan) -> None:
    offload, shard = plan.option("offload_optimizer"), plan.option("enable_optimizer_rts")
    if offload or shard:
        place = poptorch.TensorLocationSettings()
        if offload:
            place.useOnChipStorage(False)
        if shard:
            place.useReplicatedTensorSharding(True)
        options.TensorLocations.setOptimizerLocation(place)


def _common_options(plan: ExecutionPlan) -> Any:
    options = _new_options(plan)
    options.deviceIterations(plan.device_iterations)
    options.enableSyntheticData(plan.synthetic)
    options.showCompilationProgressBar(sys.stderr.isatty() and speaks())
    if plan.seed is not None:
        options.randomSeed(plan.seed)
    if plan.replicas > 1:
        # PopTorch refuses to replicate a model with buffers that change in place otherwise
        options.broadcastBuffers(False)
    _set_target(options, plan)
    _set_memory(options, plan)
    _set_arithmetic(options, plan)
    _set_engine(options, plan)
    return options


def _new_options(plan: ExecutionPlan) -> Any:
    if launched() is None:
        return poptorch.Options().replicationFactor(plan.replicas)
    from popdist.poptorch import Options

    # they take the replicas from poprun, and the place of this instance among the others
    return Options(ipus_per_replica=plan.stages)


def _set_target(options: Any, plan: ExecutionPlan) -> None:
    version = plan.option("offline_target_ipu_version")
    if version is not None:
        options.useOfflineIpuTarget(version)
    elif plan.option("connection_type") == "ondemand":
        options.connectionType(poptorch.ConnectionType.OnDemand)
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
    """Set tiles aside for transfers; the program marks the tensors that are to overlap.

    Source: PopTorch user guide, "Efficient IPU I/O", which also says that it needs this strategy.
    """
    tiles = plan.option("num_io_tiles", 0)
    if tiles:
        options.TensorLocations.numIOTiles(tiles)
        options.setExecutionStrategy(poptorch.ShardedExecution())
    depth = plan.option("prefetch_depth", _IO_BUFFERS if tiles else None)
    if depth is not None:
        options._Popart.set("defaultPrefetchBufferingDepth", depth)


def _set_engine(options: Any, plan: ExecutionPlan) -> None:
    # `setEngineOptions` replaces all that was set before and `enableProfiling` adds to it, so the
    # order matters
    settings = {}
    target = plan.option("exchange_memory_target")
    if target:
        settings["opt.internalExchangeOptimisationTarget"] = target
    if plan.option("enable_stochastic_rounding"):  # replicas must round alike, or they drift
        settings["target.deterministicWorkers"] = "portable"
    if settings:
        options._Popart.setEngineOptions(settings)
    if plan.option("profile"):
        options.enableProfiling(PROFILE_FOLDER)
