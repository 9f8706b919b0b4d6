"""Derives epoch sizes and fine-tuning options from a training's options, without torch."""

from __future__ import annotations

import os
from typing import List, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options.building import build
from ipucnn.core.options.declaration import declared
from ipucnn.training.options.resnet_trainer import raised_note
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.options.training_parts import AugmentationPart, HalfResolutionPart

FINE_TUNE = "fine-tune"
"""Folder of the fine-tuning's checkpoints, inside that of the preceding training."""

_FIRST_PHASE = (
    *(item.name for part in (HalfResolutionPart, AugmentationPart) for item in declared(part)),
    "weight_avg_strategy", "weight_avg_exp_decay", "weight_avg_n", "result")
"""Options that end with the training before the fine-tuning."""

ENDLESS_EPOCH = 60_000
"""Samples of an epoch of generated data, as in the old application."""


def endless_epoch(options: TrainOptions, plan: ExecutionPlan) -> int:
    """Return the samples per epoch of endless data, at least one host call."""
    calls = options.execution.iterations
    wanted = plan.combined_batch * calls if calls else ENDLESS_EPOCH
    return max(wanted, plan.combined_batch)


def limited_epoch(options: TrainOptions, plan: ExecutionPlan,
                  images: Optional[int]) -> Optional[int]:
    """Return the samples per epoch of a finite dataset; None if they are not known.

    Args:
        options: of the training; `--iterations` limits an epoch.
        plan: of the training.
        images: number of training images, if it is known.
    """
    calls = options.execution.iterations
    if calls is None:
        return images
    wanted = plan.combined_batch * calls
    return wanted if images is None else min(wanted, images)


def fine_tuning(options: TrainOptions, weights: str, size: int) -> TrainOptions:
    """Return the options of the fine-tuning that follows a half-resolution training.

    As in the old application: SGD without momentum, cosine from `fine_tune_lr`, no warm-up, no
    mixing, and training images prepared like validation images.
    """
    phase = options.half_resolution
    saved = options.as_dict(without=("optimizer", "lr-schedule"))
    for name in _FIRST_PHASE:
        saved.pop(name, None)
    if options.results.log_dir:
        saved["log_dir"] = os.path.join(options.results.log_dir, FINE_TUNE)
    return build(TrainOptions, {
        **saved,
        "weights": weights, "input_size": size, "epoch": phase.fine_tune_epoch,
        "lr": phase.fine_tune_lr, "batch_size": phase.fine_tune_batch_size,
        "gradient_accumulation": phase.fine_tune_gradient_accumulation,
        "accumulation_reduction": "mean",
        "first_trainable_layer": phase.fine_tune_first_trainable_layer,
        "freeze": "", "optimizer": "sgd", "momentum": 0.0, "lr_schedule": "cosine",
        "warmup_epoch": 0.0, "lr_scheduler_freq": 0.0, "augmentation": "none",
        "checkpoint_path": os.path.join(str(options.checkpoints.checkpoint_path), FINE_TUNE)})


def reduction_note(options: TrainOptions) -> str:
    """Return the learning rate for a sum over accumulation and for the mean; empty for a mean."""
    execution, rate = options.execution, options.optimisation.rate
    if execution.accumulation_reduction == "mean" or execution.gradient_accumulation == 1:
        return ""
    return (f"{rate:g} for the sum over {execution.gradient_accumulation} accumulated "
            f"micro-batches, {rate * execution.gradient_accumulation:g} for their mean")


def accumulation_notes(options: TrainOptions) -> List[str]:
    """Return the notes on an accumulation that was raised, and on rates for sums."""
    rate = reduction_note(options)
    return [note for note in (
        raised_note(options.resnet_trainer.pipeline, options.execution.gradient_accumulation),
        rate and f"learning rate {rate}") if note]


def fine_tuning_plan(options: TrainOptions, synthetic: bool) -> ExecutionPlan:
    """Return the plan of the fine-tuning; raises `UsageError` if it is not valid.

    Its weights and input size come from the preceding phase; neither changes the plan.
    """
    try:
        return fine_tuning(options, "random", options.network.input_size or 224).plan(synthetic)
    except UsageError as error:
        raise UsageError(f"in fine-tuning: {error.message}",
                         "change '--fine-tune-batch-size' or "
                         "'--fine-tune-gradient-accumulation'") from error
