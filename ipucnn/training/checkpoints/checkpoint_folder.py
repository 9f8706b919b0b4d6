"""Reads the newest checkpoint in a folder, and cleans the folder up."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import List, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.files import require_writable
from ipucnn.core.log_folder import WRITTEN
from ipucnn.core.staging import sweep
from ipucnn.models.checkpoint_files import CheckpointError, entries, names_in
from ipucnn.models.checkpoint_names import BEST, NAME
from ipucnn.models.store_paths import shown_path
from ipucnn.training.checkpoints.checkpoint import Checkpoint, load

PROBE = ".writable"
"""Name of the file that is written to check write access to a folder."""

_TEMPORARY = re.compile(r"\..+\.pt\.\w+\.tmp|\..+\.partial|\.metrics\.\w+\.tmp")
"""Names of unfinished files, those of older versions included."""


def newest(folder: Path) -> Tuple[Checkpoint, List[Tuple[Path, str]]]:
    """Return the newest intact checkpoint in a folder, and newer damaged ones.

    Raises:
        CheckpointError: there is none.
    """
    damaged: List[Tuple[Path, str]] = []
    for entry in reversed(entries(folder)):
        try:
            return load(entry.path), damaged
        except CheckpointError as error:
            damaged.append((entry.path, error.message))
    named = "; ".join(reason for _, reason in damaged)
    raise CheckpointError(f"there is no complete checkpoint in '{shown_path(folder)}'"
                          + (f": {named}" if named else ""),
                          "name the folder of checkpoints of a training")


def check_result(place: Optional[str], *folders: Optional[str]) -> None:
    """Check the file of `--result` before a training, which takes long.

    Args:
        place: the file; None without one.
        folders: of the checkpoints and the records.

    Raises:
        DataError: it cannot be written.
        UsageError: the training writes a file of this name there.
    """
    if not place:
        return
    require_writable(place)
    folder, name = os.path.split(os.path.realpath(place))
    if (name in (BEST, *WRITTEN) or NAME.fullmatch(name)) and folder in [
            os.path.realpath(own) for own in folders if own]:
        raise UsageError(f"'--result' would overwrite {place!r}, which the training writes",
                         "name another file")


def remove_stale(folder: Path) -> None:
    """Remove leftover files of interrupted writes."""
    sweep(folder, lambda name: name == PROBE or bool(_TEMPORARY.fullmatch(name)))


def remove_best(folder: Path) -> None:
    """Remove an outdated record of the best validation.

    Raises:
        CheckpointError: it cannot be removed.
    """
    try:
        (folder / BEST).unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise CheckpointError(f"cannot replace '{folder / BEST}': {error.strerror}",
                              "rename it, or choose another folder") from error


def check_unused(folder: Path) -> None:
    """Raise `UsageError` if a folder contains the checkpoints of a training."""
    if any(NAME.fullmatch(name) for name in names_in(folder)):
        place = shown_path(folder)
        raise UsageError(f"folder '{place}' contains the checkpoints of a training",
                         f"continue it with 'ipucnn restore --checkpoint-path "
                         f"{shlex.quote(place)}', or choose another folder")
