"""The job behind `ipucnn restore`: continue a training from a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.instances import fitted
from ipucnn.core.options import RestoreOptions, TrainOptions
from ipucnn.core.options.declaration import build, coerced
from ipucnn.core.registry.registry import Registry
from ipucnn.training.checkpoint_folder import newest
from ipucnn.training.checkpoints import Checkpoint, load
from ipucnn.training.phases import train_all
from ipucnn.training.train_result import Listener, TrainResult

_OF_THE_MODEL = ("model", "num_classes", "normlayer", "groupnorm_group_num", "norm_eps",
                 "batchnorm_momentum", "input_image_padding", "efficientnet_expand_ratio",
                 "efficientnet_group_dim", "shortcut_type")
_OF_THE_STATE = ("optimizer", "ema_decay", "first_trainable_layer")
_OF_THE_START = ("weights", "weights_partial", "half_res_training")


def restore(given: Mapping[str, Any], registry: Optional[Registry] = None,
            listener: Optional[Listener] = None) -> TrainResult:
    """Continue a training.

    Args:
        given: `checkpoint_path`, a file or a folder, and options that replace the checkpoint's.
        registry: where names are looked up; this process's when not given.
        listener: told which checkpoint is taken, what is replaced, and how it goes.

    Raises:
        UsageError: an option that a restored training cannot change.
        CheckpointError: there is no whole checkpoint.
    """
    listener = listener or Listener()
    values = coerced(RestoreOptions, given)
    place = values.pop("checkpoint_path", None)
    if not place:
        raise UsageError("no checkpoint is named", "add '--checkpoint-path FILE|DIR'")
    output = values.pop("checkpoint_output_dir", None)
    checkpoint = _find(Path(place), listener)
    saved = build(TrainOptions, checkpoint.options)
    folder = output or str(checkpoint.path.parent if checkpoint.path else place)
    options = _overridden(saved, values, listener)
    options, told = fitted(replace(options, checkpoint_path=folder))
    for note in told:
        listener.note(note)
    checkpoint, options = _repositioned(checkpoint, saved, options)
    if checkpoint.position.epoch >= options.epoch:
        listener.note(f"all {options.epoch} epochs are trained; '--epoch N' trains on")
    return train_all(options, registry, listener, checkpoint)


def _find(place: Path, listener: Listener) -> Checkpoint:
    if not place.is_dir():
        checkpoint = load(place)
    else:
        checkpoint, damaged = newest(place)
        for path, reason in damaged:
            listener.note(f"'{path}' is skipped: {reason}")
    position = checkpoint.position
    where = f"epoch {position.epoch}" + (f" and {position.call} calls" if position.call else "")
    listener.note(f"restoring '{checkpoint.path}': {checkpoint.model} on {checkpoint.dataset}, "
                  f"{where}")
    return checkpoint


def _overridden(saved: TrainOptions, values: Dict[str, Any], listener: Listener) -> TrainOptions:
    changed: List[Tuple[str, Any, Any]] = [
        (name, getattr(saved, name), value) for name, value in values.items()
        if hasattr(saved, name) and getattr(saved, name) != value]
    for names, why in ((_OF_THE_MODEL, "the checkpoint is of another model then"),
                       (_OF_THE_STATE, "the saved state does not fit another one"),
                       (_OF_THE_START, "it only matters when a training begins")):
        for name, before, _ in changed:
            if name in names:
                flag = "--" + name.replace("_", "-")
                raise UsageError(f"'{flag}' cannot be changed when restoring: {why}",
                                 f"leave it out (it is {before!r}), or start with "
                                 "'ipucnn train --weights FILE'")
    for name, before, after in changed:
        listener.note(f"{name.replace('_', '-')}: {_shown(before)} -> {_shown(after)}")
    return build(TrainOptions, saved.as_dict(), values)


def _repositioned(checkpoint: Checkpoint, saved: TrainOptions,
                  options: TrainOptions) -> Tuple[Checkpoint, TrainOptions]:
    """Keep the place in the epoch where a host call takes another number of samples."""
    before = saved.plan(synthetic=False).combined_batch
    after = options.plan(synthetic=False).combined_batch
    position = checkpoint.position
    if before != after and position.call:
        position = replace(position, call=position.consumed // after)
        checkpoint = replace(checkpoint, position=position)
    return checkpoint, options


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, (list, tuple)) else str(value)
