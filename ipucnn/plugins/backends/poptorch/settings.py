"""Builds PopTorch options from a plan and the backend's options."""

from __future__ import annotations

import logging
import os
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Optional

import poptorch
import torch

from ipucnn.core.execution.launching import is_first, launched
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.files import cache_dir, make_folder, trusted_folder
from ipucnn.plugins.backends._ipu.settings import PROFILE_FOLDER, collective_settings
from ipucnn.plugins.backends.poptorch import POPRUN
from ipucnn.plugins.backends.poptorch.options import PopTorchOptions
from ipucnn.plugins.backends.poptorch.sdk import emulated

log = logging.getLogger("ipucnn.poptorch")

CACHE_DIR = "POPTORCH_CACHE_DIR"
"""PopTorch's variable with the folder of its cache, in place of `--model-cache-path`."""

_IO_BUFFERS = 3


def inference_options(plan: ExecutionPlan, chosen: PopTorchOptions, program: str = "") -> Any:
    """Return the `poptorch.Options` of an inference plan.

    Args:
        plan: of the run.
        chosen: options of the backend.
        program: what names a folder of the cache; see `programs.constants_of`.

    Raises:
        UsageError: the folder of `--model-cache-path` cannot be made, or is open to others.
    """
    options = _common_options(plan, chosen, program)
    options.outputMode(poptorch.OutputMode.All)
    _set_engine(options, chosen, training=False)
    _set_transfers(options, chosen)
    return options


def training_options(plan: ExecutionPlan, chosen: PopTorchOptions, metrics: bool,
                     program: str = "") -> Any:
    """Return the `poptorch.Options` of a training plan.

    Args:
        plan: of the training.
        chosen: options of the backend.
        metrics: whether hits are counted; see `returns_sums`.
        program: what names a folder of the cache; see `programs.constants_of`.

    Raises:
        UsageError: the folder of `--model-cache-path` cannot be made, or is open to others.
    """
    options = _common_options(plan, chosen, program)
    options.outputMode(poptorch.OutputMode.Sum if returns_sums(chosen, metrics)
                       else poptorch.OutputMode.Final)
    options.Training.gradientAccumulation(plan.gradient_accumulation)
    # an update is the mean over all its samples, for any batch shape, or G times that: the sum is
    # also over replicas, whose mean the program takes
    options.Training.accumulationAndReplicationReductionType(
        poptorch.ReductionType.Sum if plan.accumulation_reduction == "sum"
        else poptorch.ReductionType.Mean)
    options.enableStableNorm(not chosen.disable_stable_batchnorm)
    if chosen.auto_loss_scaling:
        options.Training.setAutomaticLossScaling(True)
    if chosen.enable_stochastic_rounding:
        options.Precision.enableStochasticRounding(True)
    if chosen.enable_fp_exceptions:
        options.Precision.enableFloatingPointExceptions(True)
    _set_recomputation(options, plan, chosen)
    _set_optimizer_state(options, chosen)
    _set_engine(options, chosen, training=True)
    _set_transfers(options, chosen)
    collectives = collective_settings(chosen)
    if collectives:
        options._Popart.set("gclOptions", collectives)
    return options


def returns_sums(chosen: PopTorchOptions, metrics: bool) -> bool:
    """Return whether a training call returns sums, instead of the last micro-batches' values.

    Transfers that overlap with computation return every value, or sums of all.
    """
    return metrics or bool(chosen.num_io_tiles)


def training_overlap(plan: ExecutionPlan,
                     chosen: PopTorchOptions) -> Optional[poptorch.OverlapMode]:
    """Return how transfers overlap with computation in training; None without IO tiles.

    The next micro-batch of an update is fetched early where there are several, which takes less
    memory than fetching those of the next update.
    """
    if not chosen.num_io_tiles:
        return None
    return (poptorch.OverlapMode.OverlapAccumulationLoop if plan.gradient_accumulation > 1
            else poptorch.OverlapMode.OverlapDeviceIterationLoop)


_RECOMPUTE_STANDARD, _RECOMPUTE_PIPELINE, _RECOMPUTE_ALL = 1, 3, 4
"""PopART's `RecomputationType`."""


def _set_recomputation(options: Any, plan: ExecutionPlan, chosen: PopTorchOptions) -> None:
    if plan.recompute != "none":
        alone = _RECOMPUTE_ALL if plan.recompute == "manual" else _RECOMPUTE_STANDARD
        options._Popart.set("autoRecomputation", _RECOMPUTE_PIPELINE if plan.pipelined else alone)
        if chosen.num_io_tiles:
            # overlapped transfers move the operations into loops, where PopART marks none
            options._Popart.set("explicitRecomputation", True)


def _set_optimizer_state(options: Any, chosen: PopTorchOptions) -> None:
    if chosen.offload_optimizer or chosen.enable_optimizer_rts:
        place = poptorch.TensorLocationSettings()
        if chosen.offload_optimizer:
            place.useOnChipStorage(False)
        if chosen.enable_optimizer_rts:
            place.useReplicatedTensorSharding(True)
        options.TensorLocations.setOptimizerLocation(place)


def _common_options(plan: ExecutionPlan, chosen: PopTorchOptions, program: str) -> Any:
    options = _new_options(plan)
    options.deviceIterations(plan.device_iterations)
    options.enableSyntheticData(plan.synthetic)
    options.showCompilationProgressBar(sys.stderr.isatty() and is_first())
    if plan.seed is not None:
        options.randomSeed(plan.seed)
    if plan.replicas > 1:
        # PopTorch refuses to replicate a model with buffers that change in place otherwise
        options.broadcastBuffers(False)
    if plan.sharded:
        options.setExecutionStrategy(poptorch.ShardedExecution())
    _set_target(options, chosen, program)
    _set_memory(options, plan, chosen)
    _set_arithmetic(options, plan, chosen)
    return options


def _new_options(plan: ExecutionPlan) -> Any:
    launch = launched()
    if launch is None or launch.launcher != POPRUN:
        options = poptorch.Options().replicationFactor(plan.replicas)
        # an MPI of the environment would make this one of several processes that share IPUs:
        # PopTorch reads OMPI_COMM_WORLD_SIZE and OMPI_COMM_WORLD_RANK
        options.Distributed.disable()
        return options
    from popdist.poptorch import Options

    # PopDist sets the number of replicas and the place of this instance among the others
    return Options(ipus_per_replica=plan.stages)


def _set_target(options: Any, chosen: PopTorchOptions, program: str) -> None:
    if chosen.offline_target_ipu_version is not None:
        options.useOfflineIpuTarget(chosen.offline_target_ipu_version)
    elif chosen.connection_type == "ondemand":
        options.connectionType(poptorch.ConnectionType.OnDemand)
    cache = chosen.model_cache_path or default_cache()
    if cache:
        trusted_folder(cache, "--model-cache-path")
        options.enableExecutableCaching(trusted_folder(str(Path(cache, program)),
                                                       "--model-cache-path"))
    elif os.environ.get(CACHE_DIR) and not emulated():
        # PopTorch would use the folder itself, for all programs
        options.enableExecutableCaching(
            make_folder(str(Path(os.environ[CACHE_DIR], program)), CACHE_DIR))


def default_cache() -> Optional[str]:
    """Return the shared cache of processes that `poprun` started, or None.

    Without a cache each of them would compile the same program, at the same time.
    """
    launch = launched()
    if launch is None or launch.launcher != POPRUN or launch.count == 1 or emulated() \
            or os.environ.get(CACHE_DIR):
        return None
    folder = str(cache_dir() / "poptorch")
    if launch.index == 0:
        _tell(launch.count, folder)
    return folder


@lru_cache(maxsize=None)
def _tell(count: int, folder: str) -> None:
    """Report the location of the program once, not again for validation."""
    log.info("one of %d instances compiles, the others take the program from %r "
             "('--model-cache-path' names another folder)", count, folder)


def _set_memory(options: Any, plan: ExecutionPlan, chosen: PopTorchOptions) -> None:
    shares = chosen.available_memory_proportion
    if len(shares) == 1:
        shares = shares * plan.stages
    if shares:
        # there is one IPU per stage, and replicas repeat them
        options.setAvailableMemoryProportion(
            {f"IPU{stage}": share for stage, share in enumerate(shares)})


def _set_arithmetic(options: Any, plan: ExecutionPlan, chosen: PopTorchOptions) -> None:
    if chosen.half_partial and plan.half:  # its effect in single precision is not documented
        options.Precision.setPartialsType(torch.float16)
    if chosen.enable_fast_groupnorm:
        options._Popart.set("groupNormStridedChannelGrouping", True)


def _set_transfers(options: Any, chosen: PopTorchOptions) -> None:
    """Reserve tiles for transfers; the program marks the tensors whose transfers overlap.

    Source: PopTorch user guide, "Efficient IPU I/O", which also states that this strategy is
        required.
    """
    tiles = chosen.num_io_tiles
    if tiles:
        options.TensorLocations.numIOTiles(tiles)
        options.setExecutionStrategy(poptorch.ShardedExecution())
    depth = chosen.prefetch_depth or (_IO_BUFFERS if tiles else None)
    if depth is not None:
        options._Popart.set("defaultPrefetchBufferingDepth", depth)


def _set_engine(options: Any, chosen: PopTorchOptions, training: bool) -> None:
    # `setEngineOptions` replaces all that was set before and `enableProfiling` adds to it, so the
    # order matters
    settings = {}
    if chosen.exchange_memory_target:
        settings["opt.internalExchangeOptimisationTarget"] = chosen.exchange_memory_target
    if training and chosen.enable_stochastic_rounding:
        # replicas must round identically, or they diverge
        settings["target.deterministicWorkers"] = "portable"
    if settings:
        options._Popart.setEngineOptions(settings)
    if chosen.profile:
        options.enableProfiling(PROFILE_FOLDER)
