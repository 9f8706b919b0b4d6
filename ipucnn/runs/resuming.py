"""`train --resume`: continue the newest training of a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.log_folder import LOGS
from ipucnn.core.names import key
from ipucnn.core.options.composition import Given, common_option
from ipucnn.core.options.profiles import source_of
from ipucnn.data.remote.mirror import local_path
from ipucnn.data.remote.stores import Store, is_store
from ipucnn.data.remote.transfer import shown
from ipucnn.models.checkpoint_files import CheckpointError, entries
from ipucnn.models.checkpoint_names import NAME
from ipucnn.models.store_paths import divided, place_of
from ipucnn.runs.found import DEPTH, searched
from ipucnn.training.options.precedence import without_overridden
from ipucnn.training.options.train_options import TrainOptions

if TYPE_CHECKING:
    from ipucnn.core.progress import Listener
    from ipucnn.training.train_result import TrainResult

AUTO = "auto"

_NOT_PASSED_ON = ("resume", "config", "checkpoint_path", "checkpoint_input_dir", "json",
                  "progress", "no_report", "dashboard")
"""Options that `restore` does not have, or reads from the checkpoint."""


def newest_folder(place: Path, listener: Listener) -> Optional[Path]:
    """Return the folder with the newest checkpoint, `place` itself or below it, or None.

    Args:
        place: where to look.
        listener: receives a note on each folder that is skipped.

    Raises:
        CheckpointError: the only folders with checkpoints have those of several trainings.
        DataError: the folder cannot be read.
    """
    found, refused = [], []
    for folder, _, files in searched(place):
        if any(name.endswith(".pt") for name in files):
            try:
                times = [entry.path.stat().st_mtime for entry in entries(Path(folder))
                         if entry.path.is_file()]
            except CheckpointError as error:
                refused.append(error)
                continue
            if times:
                found.append((max(times), folder))
    if refused and not found:
        raise refused[0]
    for skipped in refused:
        listener.note(f"skipped: {skipped.message}")
    return Path(max(found)[1]) if found else None


def newest_on_store(url: str) -> str:
    """Return the URL of the folder on a store with the newest checkpoint, or an empty text.

    Raises:
        IpucnnError: the URL is wrong, or the store does not respond.
    """
    url = url.rstrip("/")
    store, found = Store(url), []
    folders = [("", 0)]
    while folders:
        place, depth = folders.pop()
        for stored in store.listing(place):
            if not stored.folder and NAME.fullmatch(stored.name):
                found.append((stored.modified, place))
            elif stored.folder and depth < DEPTH and not stored.name.startswith("."):
                folders.append((f"{place}/{stored.name}".lstrip("/"), depth + 1))
    return f"{url}/{max(found)[1]}".rstrip("/") if found else ""


def continued(given: Mapping[str, Any], options: TrainOptions,
              listener: Listener) -> Optional[Dict[str, Any]]:
    """Return the options for `restore`, or None when a training begins.

    Args:
        given: options of `train` as given by the user.
        options: the same, with the profile and the defaults.
        listener: receives notes.

    Raises:
        IpucnnError: the checkpoint that is named does not exist, or a store does not respond.
    """
    place = str(options.results.resume or "")
    if not place:
        return None
    automatic = key(place) == AUTO
    if automatic:
        place = str(options.checkpoints.checkpoint_path or LOGS)
    place = local_path(place)
    found = _newest(place, listener)
    if found is None:
        if automatic:
            return None
        within = "in " if _is_folder(place) else ""
        raise UsageError(f"there is no checkpoint {within}{shown(place)!r} to resume",
                         "'--resume auto' starts a new training where there is none")
    changes = _changes(given, options, found)
    named = {item.name for name in given for item in [common_option(TrainOptions, name)] if item}
    if not automatic and named & {"checkpoint_path", "checkpoint_input_dir"}:
        changes["checkpoint_output_dir"] = options.checkpoints.checkpoint_path
    return {"checkpoint_path": found, **changes}


def resumed(given: Mapping[str, Any], options: TrainOptions,
            listener: Listener) -> Optional[TrainResult]:
    """Continue the training that `--resume` names; return None when a new one has to begin.

    Args:
        given: options of `train` as given by the user.
        options: the same, with the profile and the defaults.
        listener: receives notes and progress.

    Raises:
        IpucnnError: see `continued`, and anything that ends a training.
    """
    restored = continued(given, options, listener)
    if restored is None:
        return None
    from ipucnn.training.restore import restore

    listener.note(f"the training in '{shown(restored['checkpoint_path'])}' is continued")
    return restore(restored, listener=listener)


def _newest(place: str, listener: Listener) -> Optional[str]:
    """Return a checkpoint that is named, or the folder with the newest one, or None."""
    if is_store(place):
        folder, file = divided(place)
        if not file:
            return newest_on_store(place) or None
        return place if Store(folder).stat(file) is not None else None
    path = newest_folder(Path(place), listener) if os.path.isdir(place) else Path(place)
    return str(path) if path is not None and path.exists() else None


def _is_folder(place: str) -> bool:
    return (is_store(place) and not divided(place)[1]) or os.path.isdir(place)


def _changes(given: Mapping[str, Any], options: TrainOptions, found: str) -> Dict[str, Any]:
    """Return the given options whose values differ from those of the checkpoint.

    Equal options are left out, because a restored training may not be able to change them. Those of
    a file of the user are given, too; a training adapts shipped profiles to its images.
    """
    from ipucnn.training.checkpoints.checkpoint import load
    from ipucnn.training.checkpoints.checkpoint_folder import newest

    path = place_of(found)
    saved = (newest(path)[0] if path.is_dir() else load(path)).options
    resolved = options.settled_as(saved).as_dict()
    changes: Dict[str, Any] = {}
    for name, value in _with_profile(given).items():
        plain = _plain(name)
        if plain in _NOT_PASSED_ON:
            continue
        if plain in ("wandb", "logger"):  # `restore` has `logger` only
            name, plain, value = "logger", "logger", options.results.logger
        if plain not in resolved or resolved[plain] != saved.get(plain) or plain == "result":
            changes[name] = value
    return changes


def _with_profile(given: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the given options, and those of a profile of the user that they do not override."""
    own = {_common(name): value for name, value in given.items()}
    values: Dict[str, Any] = {}
    if given.get("config"):
        source = source_of(TrainOptions, str(given["config"]), "train")
        overridden = set(map(_plain, own))
        values = {} if source.shipped else {
            _common(name): value for name, value in source.values.items()
            if value is not None and _plain(name) not in overridden}
    profile, own = without_overridden([values, own])
    return {**profile, **own}


def _common(spelling: str) -> str:
    """Return the name of an option of the command; the spelling of one of a plugin."""
    item = common_option(TrainOptions, spelling)
    return spelling if item is None else item.name


def _plain(spelling: str) -> str:
    """Return the name of an option without its plugin."""
    item = common_option(TrainOptions, spelling)
    return item.name if item is not None else key(Given(spelling, None).bare).replace("-", "_")
