"""Builds PopART session options from a training plan and the backend's options."""

from __future__ import annotations

from typing import Any

import popart

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.plugins.backends._ipu.settings import collective_settings
from ipucnn.plugins.backends.popart.options import PopArtOptions
from ipucnn.plugins.backends.popart.settings import session_options


def training_options(plan: ExecutionPlan, chosen: PopArtOptions, optimizer: str) -> Any:
    """Return the `popart.SessionOptions` of a training plan.

    Args:
        plan: of the training.
        chosen: options of the backend.
        optimizer: name of the optimizer.

    Raises:
        UsageError: the folder of `--model-cache-path` cannot be made, or is open to others.
    """
    options = session_options(plan, chosen)
    if plan.gradient_accumulation > 1:
        options.enableGradientAccumulation = True
        options.accumulationFactor = plan.gradient_accumulation
    # an update is the mean over all its samples, for any batch shape. A sum is also over replicas,
    # whose mean the graph takes
    kinds = popart.ReductionType
    options.accumulationAndReplicationReductionType = (
        kinds.Sum if plan.accumulation_reduction == "sum" else kinds.Mean)
    options.meanAccumulationAndReplicationReductionStrategy = _division(plan, optimizer)
    options.enableStableNorm = not chosen.disable_stable_batchnorm
    options.enableStochasticRounding = chosen.enable_stochastic_rounding
    options.enableFloatingPointChecks = chosen.enable_fp_exceptions
    if chosen.auto_loss_scaling:
        options.automaticLossScalingSettings.enabled = True
    modes = popart.RecomputationType
    if plan.recompute == "auto":
        options.autoRecomputation = modes.Pipeline if plan.pipelined else modes.Standard
    elif plan.recompute == "manual" and not plan.recompute_checkpoints:
        options.autoRecomputation = modes.RecomputeAll  # else nodes are marked one by one
    if plan.recompute != "none" and chosen.num_io_tiles:
        # overlapped transfers move the operations into loops, where PopART marks none
        options.explicitRecomputation = True
    _set_optimizer_state(options, chosen)
    collectives = collective_settings(chosen)
    if collectives:
        options.gclOptions = collectives
    return options


def _division(plan: ExecutionPlan, optimizer: str) -> Any:
    """Return when a sum of gradients is divided.

    A sum in half precision overflows, a running mean does not; PopTorch decides the same way
    (`python/_optimizer_attributes.py`), and leaves combined accumulators at the sum too.
    """
    strategies = popart.MeanReductionStrategy
    half = plan.precision == "16.16" and optimizer != "sgd_combined"
    return strategies.Running if half else strategies.Post


def _set_optimizer_state(options: Any, chosen: PopArtOptions) -> None:
    place = options.optimizerStateTensorLocationSettings.location
    if chosen.offload_optimizer:
        place.storage = popart.TensorStorage.OffChip
    if chosen.enable_optimizer_rts:
        place.replicatedTensorSharding = popart.ReplicatedTensorSharding.On
