"""A plan's values as PopART session options: every setting and the field behind it."""

from __future__ import annotations

from typing import Any

import popart

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.files import make_folder

PROFILE_FOLDER = "poplar-profile"
"""Where `--profile` writes, in the working folder; PopVision Graph Analyser opens it."""


def session_options(plan: ExecutionPlan) -> Any:
    """Return the `popart.SessionOptions` that inference and training have in common.

    Raises:
        UsageError: the folder of `--model-cache-path` cannot be made.
    """
    options = popart.SessionOptions()
    _set_devices(options, plan)
    _set_arithmetic(options, plan)
    _set_transfers(options, plan)
    _set_engine(options, plan)
    return options


def inference_options(plan: ExecutionPlan) -> Any:
    """Return the `popart.SessionOptions` of an inference plan.

    Raises:
        UsageError: the folder of `--model-cache-path` cannot be made.
    """
    options = session_options(plan)
    # as variables they can be replaced, and a cached program takes the weights of its run
    options.constantWeights = False
    return options


def _set_devices(options: Any, plan: ExecutionPlan) -> None:
    if plan.local_replicas > 1:
        options.enableReplicatedGraphs = True
        options.replicatedGraphCount = plan.local_replicas
    if plan.stages > 1:
        options.enablePipelining = True
        options.virtualGraphMode = popart.VirtualGraphMode.Manual


def _set_arithmetic(options: Any, plan: ExecutionPlan) -> None:
    if plan.option("half_partial"):
        options.convolutionOptions = {"partialsType": "half"}
        options.partialsTypeMatMuls = "half"
    if plan.option("enable_fast_groupnorm"):
        options.groupNormStridedChannelGrouping = True


def _set_transfers(options: Any, plan: ExecutionPlan) -> None:
    if plan.synthetic:
        options.syntheticDataMode = popart.SyntheticDataMode.RandomNormal
    depth = plan.option("prefetch_depth")
    if depth is not None:
        options.defaultBufferingDepth = depth


def _set_engine(options: Any, plan: ExecutionPlan) -> None:
    settings = {}
    target = plan.option("exchange_memory_target")
    if target:
        settings["opt.internalExchangeOptimisationTarget"] = target
    if plan.option("profile"):
        settings.update({"autoReport.all": "true", "autoReport.directory": PROFILE_FOLDER})
    if settings:
        options.engineOptions = settings
    cache = plan.option("model_cache_path")
    if cache:
        options.enableEngineCaching = True
        options.cachePath = make_folder(cache, "--model-cache-path")
    if plan.option("report_hw_cycle_count"):
        options.instrumentWithHardwareCycleCounter = True
