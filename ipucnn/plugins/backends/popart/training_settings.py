"""A training plan's values as PopART session options: every setting and the field behind it."""

from __future__ import annotations

from typing import Any

import popart

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.plugins.backends.popart.settings import session_options


def training_options(plan: ExecutionPlan) -> Any:
    """Return the `popart.SessionOptions` of a training plan.

    Raises:
        UsageError: the folder of `--model-cache-path` cannot be made.
    """
    options = session_options(plan)
    if plan.gradient_accumulation > 1:
        options.enableGradientAccumulation = True
        options.accumulationFactor = plan.gradient_accumulation
    # an update is the mean over everything that it sees, whatever its shape; the division is
    # after the sum of all gradients
    options.accumulationAndReplicationReductionType = popart.ReductionType.Mean
    options.meanAccumulationAndReplicationReductionStrategy = popart.MeanReductionStrategy.Post
    options.enableStableNorm = not plan.option("disable_stable_batchnorm", False)
    options.enableStochasticRounding = plan.option("enable_stochastic_rounding", False)
    options.enableFloatingPointChecks = plan.option("enable_fp_exceptions", False)
    if plan.option("auto_loss_scaling"):
        options.automaticLossScalingSettings.enabled = True
    if plan.option("recompute_mode") == "auto":
        kinds = popart.RecomputationType
        options.autoRecomputation = kinds.Pipeline if plan.pipeline_splits else kinds.Standard
    _set_optimizer_state(options, plan)
    return options


def _set_optimizer_state(options: Any, plan: ExecutionPlan) -> None:
    place = options.optimizerStateTensorLocationSettings.location
    if plan.option("offload_optimizer"):
        place.storage = popart.TensorStorage.OffChip
    if plan.option("enable_optimizer_rts"):
        place.replicatedTensorSharding = popart.ReplicatedTensorSharding.On
