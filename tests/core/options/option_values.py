"""Values of options made from their declarations."""

from __future__ import annotations

from ipucnn.core.registry.registry import registry

COMPANIONS = {
    "ema": {"weights": "weights.pt"}, "weights_partial": {"weights": "weights.pt"},
    "recompute_checkpoints": {"recompute_mode": "manual"},
    "initial_loss_scaling": {"loss_scaling": 4096.0},
    "cutmix_lambda_low": {"cutmix_lambda_high": 1.0, "batch_size": 8},
    "cutmix_lambda_high": {"batch_size": 8}, "mixup_alpha": {"batch_size": 8},
    "early_stopping": {"validation_mode": "during"}, "keep_best": {"validation_mode": "during"},
    "half_res_training": {"fine_tune_epoch": 1, "fine_tune_first_trainable_layer": "layer4",
                          "weight_avg_strategy": "mean", "checkpoint_path": "saved"},
    "weight_avg_strategy": {"checkpoint_path": "saved"},
    "checkpoint_save_steps": {"checkpoint_path": "saved"},
    "checkpoint_save_minutes": {"checkpoint_path": "saved"},
    "freeze": {"weights": "pretrained"},
    "calibration_samples": {"precision": "int8"}, "calibration_dir": {"precision": "int8"},
    "log_path": {"instances": 2}, "hide_output": {"instances": 2},
    "oversubscribe": {"instances": 2},
    "top_k": {"predictions": "p.csv"}, "target": {},
    "compute_batch_size": {"model": "resnet18"},
    "dataloader_rebatch_size": {"dataloader_mode": "rebatched"},
    "samples": {"data_dir": "."},
    "nesterov": {"momentum": 0.9}, "lr_factors": {"lr_epoch_decay": (3.0,)},
}
"""What else must be given with an option for its command to accept it."""

SPECIAL = {"train_preprocess_steps": ("Resize(256)",), "output": "net.onnx",
           "validation_preprocess_steps": ("CenterCrop(224)",), "offline_target_ipu_version": 21,
           "lr_factors": (1.0, 0.1), "num_io_tiles": 64, "reestimate_batch_norm": 8}
"""Values of options that check more than they declare."""


def other_value(item):
    """Return an allowed value of an option that is not its default."""
    if item.name in SPECIAL:
        return SPECIAL[item.name]
    value = next(value for value in _values(item) if value != item.default)
    assert item.coerce(value) == value, item.flag
    return value


def _values(item):
    rule = item.option
    found = ["some", "other"]
    if item.boolean:
        found = [True, False]
    elif rule.choices:
        found = list(dict.fromkeys(rule.choices.values()))
    elif rule.kind:
        found = registry().names(rule.kind)
    elif item.type is int:
        least = 1 if rule.minimum is None else int(rule.minimum)
        found = [least + 1, least]
    elif item.type is float:
        least = rule.minimum or rule.exclusive_minimum or 0.0
        most = rule.maximum if rule.maximum is not None else least + 2
        found = [least + (most - least) / 4, least + (most - least) / 2]
    return [*((value,) for value in found), ()] if item.many else found
