"""`train --resume`: continue the newest training of a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.names import key
from ipucnn.core.options.composition import common_option
from ipucnn.models.checkpoint_files import entries
from ipucnn.training.options import TrainOptions

AUTO = "auto"
LOGS = "logs"

_NOT_PASSED_ON = ("resume", "config", "checkpoint_path", "checkpoint_input_dir", "json",
                  "progress", "result", "dashboard", "wandb")
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


def continued(given: Mapping[str, Any], options: TrainOptions) -> Optional[Dict[str, Any]]:
    """Return the options for `restore`, or None when a training begins.

    Args:
        given: options of `train` as given on the command line.
        options: the same, with the profile and the defaults.

    Raises:
        UsageError: the checkpoint that is named does not exist.
    """
    place = str(given.get("resume") or "")
    if not place:
        return None
    found: Optional[Path]
    kept = str(options.checkpoints.checkpoint_path or LOGS)
    if "://" in (kept if key(place) == AUTO else place):
        raise UsageError("'--resume' finds trainings in folders of this machine",
                         "'ipucnn restore --checkpoint-path URL' continues one in a store")
    if key(place) == AUTO:
        found = newest_folder(Path(kept))
        if found is None:
            return None
    else:
        found = Path(place).expanduser()
        if not found.exists():
            raise UsageError(f"there is no checkpoint '{place}' to resume",
                             "'--resume auto' finds the newest, and begins where there is none")
        if found.is_dir():
            found = newest_folder(found)
            if found is None:
                raise UsageError(f"there is no checkpoint in '{place}'",
                                 "'--resume auto' begins where there is none")
    return {"checkpoint_path": str(found), **_changes(given, options, found)}


def _changes(given: Mapping[str, Any], options: TrainOptions, found: Path) -> Dict[str, Any]:
    """Return the given options whose values differ from those of the checkpoint.

    What is equal is left out: it may be an option that a restored training cannot change.
    """
    from ipucnn.training.checkpoint_folder import newest
    from ipucnn.training.checkpoints import load

    saved = (newest(found)[0] if found.is_dir() else load(found)).options
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
