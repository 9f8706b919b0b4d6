"""`train --resume`: continue the newest training of a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.names import key
from ipucnn.core.options.composition import common_option
from ipucnn.data.remote.mirror import local_path
from ipucnn.data.remote.stores import Store, is_store
from ipucnn.data.remote.transfer import shown
from ipucnn.models.checkpoint_files import entries
from ipucnn.models.checkpoint_names import NAME
from ipucnn.models.store_paths import divided, place_of
from ipucnn.runs.found import DEPTH
from ipucnn.training.options import TrainOptions

if TYPE_CHECKING:
    from ipucnn.core.progress import Listener
    from ipucnn.training.train_result import TrainResult

AUTO = "auto"
LOGS = "logs"

_NOT_PASSED_ON = ("resume", "config", "checkpoint_path", "checkpoint_input_dir", "json",
                  "progress", "result", "no_report", "dashboard", "wandb")
"""Options that `restore` does not take, or takes from elsewhere."""


def newest_folder(place: Path) -> Optional[Path]:
    """Return the folder with the newest checkpoint, `place` itself or below it, or None."""
    found = []
    for folder, below, files in os.walk(place):
        below[:] = [name for name in below if not name.startswith(".")]
        if any(name.endswith(".pt") for name in files):
            times = [entry.path.stat().st_mtime for entry in entries(Path(folder))
                     if entry.path.is_file()]
            if times:
                found.append((max(times), folder))
    return Path(max(found)[1]) if found else None


def newest_on_store(url: str) -> str:
    """Return the URL of the folder on a store with the newest checkpoint, or an empty text.

    Raises:
        IpucnnError: the URL is wrong, or the store does not answer.
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


def continued(given: Mapping[str, Any], options: TrainOptions) -> Optional[Dict[str, Any]]:
    """Return the options for `restore`, or None when a training begins.

    Args:
        given: options of `train` as given by the user.
        options: the same, with the profile and the defaults.

    Raises:
        IpucnnError: the checkpoint that is named does not exist, or a store does not answer.
    """
    place = str(options.results.resume or "")
    if not place:
        return None
    automatic = key(place) == AUTO
    if automatic:
        place = str(options.checkpoints.checkpoint_path or LOGS)
    place = local_path(place)
    found = _newest(place)
    if found is None:
        if automatic:
            return None
        within = "in " if _is_folder(place) else ""
        raise UsageError(f"there is no checkpoint {within}{shown(place)!r} to resume",
                         "'--resume auto' starts a new training where there is none")
    return {"checkpoint_path": found, **_changes(given, options, found)}


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
    restored = continued(given, options)
    if restored is None:
        return None
    from ipucnn.training.restore import restore

    listener.note(f"the training in '{shown(restored['checkpoint_path'])}' is continued")
    return restore(restored, listener=listener)


def _newest(place: str) -> Optional[str]:
    """Return a checkpoint that is named, or the folder with the newest one, or None."""
    if is_store(place):
        folder, file = divided(place)
        if not file:
            return newest_on_store(place) or None
        return place if Store(folder).stat(file) is not None else None
    path = Path(place)
    if path.is_dir():
        path = newest_folder(path) or Path()
    return str(path) if path != Path() and path.exists() else None


def _is_folder(place: str) -> bool:
    return (is_store(place) and not divided(place)[1]) or os.path.isdir(place)


def _changes(given: Mapping[str, Any], options: TrainOptions, found: str) -> Dict[str, Any]:
    """Return the given options whose values differ from those of the checkpoint.

    What is equal is left out: it may be an option that a restored training cannot change.
    """
    from ipucnn.training.checkpoint_folder import newest
    from ipucnn.training.checkpoints import load

    path = place_of(found)
    saved = (newest(path)[0] if path.is_dir() else load(path)).options
    resolved = options.as_dict()
    changes: Dict[str, Any] = {}
    for name, value in given.items():
        item = common_option(TrainOptions, name)
        plain = item.name if item is not None else name
        if plain in _NOT_PASSED_ON:
            continue
        if plain not in resolved or resolved[plain] != saved.get(plain):
            changes[name] = value
    return changes
