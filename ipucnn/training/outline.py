"""What a training's options say of its course, without data, model or torch."""

from __future__ import annotations

from pathlib import Path

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options import TrainOptions
from ipucnn.core.options.declaration import build

FINE_TUNE = "fine-tune"
"""Folder of the fine-tuning's checkpoints, in that of the training before it."""

ENDLESS_EPOCH = 60_000
"""Samples of an epoch of generated data, as in the old application."""


def endless_epoch(options: TrainOptions, plan: ExecutionPlan) -> int:
    """Return the samples of an epoch of data without an end, at least one host call."""
    wanted = plan.combined_batch * options.iterations if options.iterations else ENDLESS_EPOCH
    return max(wanted, plan.combined_batch)


def fine_tuning(options: TrainOptions, weights: str, size: int) -> TrainOptions:
    """Return the options of the fine-tuning that follows a half-resolution training.

    As in the old application: SGD without momentum, cosine from `fine_tune_lr`, no warm-up, no
    mixing, and training images prepared as those of validation.
    """
    return build(TrainOptions, {
        **options.as_dict(), "half_res_training": False, "weights": weights, "input_size": size,
        "epoch": options.fine_tune_epoch, "lr": options.fine_tune_lr,
        "batch_size": options.fine_tune_batch_size,
        "gradient_accumulation": options.fine_tune_gradient_accumulation,
        "first_trainable_layer": options.fine_tune_first_trainable_layer,
        "optimizer": "sgd", "momentum": 0.0, "lr_schedule": "cosine", "warmup_epoch": 0.0,
        "lr_scheduler_freq": 0.0, "lr_decay": TrainOptions.lr_decay, "lr_epoch_decay": (),
        "lr_factors": (),
        "lr_power": TrainOptions.lr_power, "optimizer_eps": TrainOptions.optimizer_eps,
        "rmsprop_decay": TrainOptions.rmsprop_decay, "mixup_alpha": 0.0, "cutmix_lambda_low": 0.0,
        "cutmix_lambda_high": 0.0, "augmentation": "none", "use_bbox_info": False,
        "rand_augment": 0, "weight_avg_strategy": "none",
        "checkpoint_path": str(Path(str(options.checkpoint_path)) / FINE_TUNE)})


def fine_tuning_plan(options: TrainOptions, synthetic: bool) -> ExecutionPlan:
    """Return what the fine-tuning executes; raises `UsageError` when it cannot be.

    Its weights and input size come from the phase before; neither changes the plan.
    """
    try:
        return fine_tuning(options, "random", options.input_size or 224).plan(synthetic)
    except UsageError as error:
        raise UsageError(f"in fine-tuning: {error.message}",
                         "change '--fine-tune-batch-size' or "
                         "'--fine-tune-gradient-accumulation'") from error
