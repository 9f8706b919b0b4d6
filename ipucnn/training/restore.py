"""The job behind `ipucnn restore`: continue a training from a checkpoint."""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.launching import fitted, is_first, launched
from ipucnn.core.log_folder import LOGS
from ipucnn.core.options.building import build, common_values
from ipucnn.core.options.composition import common_option, settings
from ipucnn.core.progress import Listener
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.data.opening import takes_folder_of
from ipucnn.data.remote.stores import is_store
from ipucnn.models.checkpoint_files import CheckpointError, entries
from ipucnn.models.store_paths import divided, on_store, place_of, shown_path
from ipucnn.training.checkpoints.checkpoint import Checkpoint, load
from ipucnn.training.checkpoints.checkpoint_folder import check_result, newest
from ipucnn.training.checkpoints.saved_plugins import Saved, still_valid, without_unusable
from ipucnn.training.options.train_options import RestoreOptions, TrainOptions
from ipucnn.training.phases import train_all
from ipucnn.training.records.folder_lock import locked
from ipucnn.training.train_result import TrainResult


def restore(given: Mapping[str, Any], registry: Optional[Registry] = None,
            listener: Optional[Listener] = None) -> TrainResult:
    """Continue a training.

    Args:
        given: `checkpoint_path`, a file or a folder, and options that replace the checkpoint's.
            The caller writes the file of `result`, which is only checked here.
        registry: where names are looked up; this process's when not given.
        listener: receives the chosen checkpoint, the replaced options, and progress.

    Raises:
        UsageError: an option that a restored training cannot change.
        CheckpointError: there is no intact checkpoint.
    """
    listener = listener or Listener()
    registry = registry or current_registry()
    own, overrides = _divided(given)
    place = own.get("checkpoint_path")
    if not place:
        raise UsageError("a checkpoint is required", "add '--checkpoint-path FILE|DIR'")
    folder = own.get("checkpoint_output_dir") or _folder_of(place)
    check_result(own.get("result"), folder, overrides.get("log_dir"))
    if folder != _folder_of(place) and _is_restarted_in(folder):
        place = folder
    with ExitStack() as held:
        output = place_of(folder, writes=is_first())
        if is_first() and output.is_dir():  # before the newest checkpoint is looked for
            held.enter_context(locked(output, "--checkpoint-output-dir", listener.note))
        own["checkpoint_path"] = place_of(place)
        if is_store(place) and divided(place)[0] == folder:  # one folder of copies is sufficient
            own["checkpoint_path"] = output / divided(place)[1]
        return _restored(own, overrides, folder, registry, listener)


def _is_restarted_in(folder: str) -> bool:
    """Return whether a launcher has restarted a training that has saved checkpoints in a folder."""
    launch = launched()
    with suppress(CheckpointError):  # there is no such folder yet
        return bool(launch and launch.restarts and entries(place_of(folder)))
    return False


def _folder_of(place: str) -> str:
    """Return the folder of a checkpoint, or the folder that is named."""
    if is_store(place):
        return divided(place)[0]
    return place if os.path.isdir(place) else os.path.dirname(place) or "."


def _restored(own: Mapping[str, Any], overrides: Mapping[str, Any], folder: str,
              registry: Registry, listener: Listener) -> TrainResult:
    checkpoint = replace(_find(Path(own["checkpoint_path"]), listener),
                         add_classes=bool(own.get("add_classes")))
    saved = _saved_options(checkpoint, overrides, registry, listener)
    read = checkpoint.path.parent if checkpoint.path else Path(folder)
    saved = _with_log_of(saved, folder, read)
    options = _overridden(saved, overrides, registry, listener)
    options, notes = fitted(options.with_values(checkpoint_path=folder))
    for note in notes:
        listener.note(note)
    checkpoint, options = _repositioned(checkpoint, saved, options)
    if checkpoint.position.epoch >= options.optimisation.epochs:
        listener.note(f"all {options.optimisation.epochs} epochs are done; '--epoch N' "
                      "continues")
    return train_all(options, registry, listener, checkpoint)


def restarted(options: TrainOptions, registry: Optional[Registry] = None,
              listener: Optional[Listener] = None) -> Optional[TrainResult]:
    """Continue the training of these options if its launcher has restarted the processes.

    Args:
        options: of the training, as at its start.
        registry: where names are looked up; this process's when not given.
        listener: see `restore`.

    Returns:
        The result; None if a new training must be started: at the first start, without a folder of
        checkpoints, or if it has no checkpoint with these options.
    """
    launch, folder = launched(), options.checkpoints.checkpoint_path
    if launch is None or not launch.restarts or not folder:
        return None
    try:
        saved = newest(place_of(folder))[0].options
    except CheckpointError:
        return None
    replaceable = {"replicas", *options.shipped}  # few images replace values of a shipped profile
    if any(value is not None and name not in replaceable and saved.get(name) != value
           for name, value in options.settled_as(saved).as_dict().items()):
        return None
    return restore({"checkpoint_path": folder}, registry, listener)


_OWN = ("checkpoint_path", "checkpoint_output_dir", "add_classes", "result")


def _divided(given: Mapping[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return the checkpoint, the output folder, and the options that replace saved ones."""
    own: Dict[str, Any] = {}
    others: Dict[str, Any] = {}
    for spelling, value in given.items():
        item = common_option(RestoreOptions, spelling)
        if item is not None and item.name == "config" and value is not None:
            raise UsageError("'--config' cannot be used with 'restore'",
                             "give the options to change on the command line")
        if item is not None and item.name == "no_checkpoints" and item.coerce(value):
            raise UsageError("'--no-checkpoints' cannot be used for a restored training, which "
                             "continues in a folder", "leave it out, or choose another folder with "
                             "'--checkpoint-output-dir'")
        if item is not None and item.name in _OWN:
            own[item.name] = item.coerce(value)
        else:
            others[spelling] = value
    return own, others


def _find(place: Path, listener: Listener) -> Checkpoint:
    if on_store(place) is None and not place.is_dir():
        checkpoint = load(place)
    else:
        checkpoint, damaged = newest(place)
        for path, reason in damaged:
            listener.note(f"'{shown_path(path)}' is skipped: {reason}")
    position = checkpoint.position
    where = f"epoch {position.epoch}" + (f" and {position.call} calls" if position.call else "")
    name = shown_path(checkpoint.path) if checkpoint.path else ""
    listener.note(f"restoring '{name}': {checkpoint.model} on {checkpoint.dataset}, "
                  f"{where}")
    return checkpoint


def _saved_options(checkpoint: Checkpoint, overrides: Mapping[str, Any], registry: Registry,
                   listener: Listener) -> TrainOptions:
    """Return the saved options without plugins that are not installed and are replaced."""
    saved = checkpoint.options
    replaceable = [name for name in TrainOptions.kinds
                   for item in [common_option(TrainOptions, KINDS[name].selector)]
                   if item is not None and not item.option.fixed]
    values = without_unusable(saved, registry, common_values(TrainOptions, overrides), replaceable)
    for name, value in values.items():
        if value != saved[name]:
            listener.note(f"{name.replace('_', '-')}: {_shown(saved[name])} -> {_shown(value)}")
    place = shown_path(checkpoint.path) if checkpoint.path else checkpoint.name
    where = Saved(place, checkpoint.versions, TrainOptions.kinds)
    values = still_valid(values, registry, where, overrides, replaceable)
    try:
        return build(TrainOptions, values, registry=registry)
    except UsageError as error:
        if type(error) is not UsageError:
            raise
        raise UsageError(f"{error.message} (options saved in '{place}')", error.hint) from error


def _with_log_of(saved: TrainOptions, folder: str, read: Path) -> TrainOptions:
    """Return the saved options with the log folder at its new place.

    It may have been moved or copied with the checkpoints, and a relative path may be used from
    another working folder than that of the training.

    Args:
        saved: the saved options.
        folder: of further checkpoints.
        read: the folder of the checkpoint.
    """
    before, log_dir = saved.checkpoints.checkpoint_path, saved.results.log_dir
    if not log_dir or is_store(folder) or (before and is_store(before)):
        return saved
    before = before or os.path.join(LOGS, read.resolve().name)
    within = os.path.relpath(log_dir, before)
    if within.split(os.sep)[0] != os.pardir:
        return saved.with_values(log_dir=os.path.normpath(os.path.join(folder, within)))
    beside = os.path.normpath(str(read / within))
    if os.path.isabs(log_dir) or os.path.isabs(before) or not os.path.isdir(beside) \
            or os.path.realpath(beside) == os.path.realpath(log_dir):
        return saved
    return saved.with_values(log_dir=beside)


def _overridden(saved: TrainOptions, overrides: Mapping[str, Any], registry: Registry,
                listener: Listener) -> TrainOptions:
    """Return the saved options with the given replacements; each one is reported.

    If another plugin is selected, the saved options of the previous one are dropped.
    """
    common = common_values(TrainOptions, overrides)
    replaced = [kind for kind in TrainOptions.kinds for selector in [KINDS[kind].selector]
                if selector in common and common[selector] != saved.get(selector)]
    kept = saved.as_dict(without=replaced)
    if "dataset" in replaced and not takes_folder_of(*(
            registry.get_typed(DatasetSpec, name)
            for name in (common["data"], saved.dataset.data))):
        kept = {name: value for name, value in kept.items()
                if name not in ("data_dir", "validation_data_dir")}
    options = build(TrainOptions, kept, overrides, registry=registry, restoring=True)
    before, after = settings(saved), settings(options)
    changes = [(name, item, before[name][1] if name in before else None, value)
               for name, (item, value) in after.items()
               if not item.option.switch and (name not in before or before[name][1] != value)]
    for name, item, old, _ in changes:
        if item.option.fixed and name in before:
            raise UsageError(
                f"'{item.flag}' cannot be changed when restoring: {item.option.fixed_because}",
                f"leave it out (it is {old!r}), or start with 'ipucnn train --weights FILE'")
    for name, item, old, new in changes:
        if name in before or new != item.default:
            listener.note(f"{name.replace('_', '-')}: {_shown(old)} -> {_shown(new)}")
    return options


def _repositioned(checkpoint: Checkpoint, saved: TrainOptions,
                  options: TrainOptions) -> Tuple[Checkpoint, TrainOptions]:
    """Convert the position in the epoch if the samples per host call have changed."""
    before = saved.plan(synthetic=False).combined_batch
    after = options.plan(synthetic=False).combined_batch
    position = checkpoint.position
    if before != after and position.call:
        position = replace(position, call=position.consumed // after)
        checkpoint = replace(checkpoint, position=position)
    return checkpoint, options


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, (list, tuple)) else str(value)
