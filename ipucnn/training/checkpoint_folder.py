"""Finds, orders and cleans up the checkpoints in a folder."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import List, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.training.checkpoints import Checkpoint, CheckpointError, load

_NAME = re.compile(r"(?P<run>.+)_(?P<epoch>\d+)(?:\.step(?P<step>\d+))?"
                   r"(?P<averaged>_averaged)?\.pt")
_TEMPORARY = re.compile(r"\..+\.pt\.\w+\.tmp")


@dataclass(frozen=True)
class Entry:
    """A checkpoint by its file name.

    Attributes:
        path: the file.
        run: model and dataset, as in the name.
        epoch: epoch in the name.
        step: weight updates, for those written within an epoch; else 0.
        averaged: it is an average of others.
    """

    path: Path
    run: str
    epoch: int
    step: int = 0
    averaged: bool = False


def entries(folder: Path, averaged: bool = False) -> List[Entry]:
    """Return the checkpoints in a folder, in the order of the training.

    Args:
        folder: where they are; other files are left out.
        averaged: whether to include averages.

    Raises:
        CheckpointError: the folder cannot be read, or has those of several trainings.
    """
    try:
        names = sorted(os.listdir(str(folder)))
    except OSError as error:
        raise CheckpointError(f"cannot list folder '{folder}': {error.strerror}",
                              "name the folder of a training's checkpoints") from error
    found = []
    for name in names:
        match = _NAME.fullmatch(name)
        if match and not name.startswith("."):
            found.append(Entry(folder / name, match["run"], int(match["epoch"]),
                               int(match["step"] or 0), bool(match["averaged"])))
    runs = sorted({entry.run for entry in found})
    if len(runs) > 1:
        raise CheckpointError(f"folder '{folder}' has checkpoints of {len(runs)} trainings: "
                              + ", ".join(runs), "name one file")
    kept = [entry for entry in found if averaged or not entry.averaged]
    # within epoch 3 comes before its end
    return sorted(kept, key=lambda e: (e.epoch, not e.step, e.step, e.averaged))


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
    raise CheckpointError(f"there is no whole checkpoint in '{folder}'"
                          + (f": {named}" if named else ""),
                          "name the folder that '--checkpoint-path' of a training wrote")


def remove_stale(folder: Path) -> None:
    """Remove leftover files of interrupted writes."""
    with suppress(OSError):
        for name in os.listdir(str(folder)):
            if _TEMPORARY.fullmatch(name):
                with suppress(OSError):
                    os.unlink(str(folder / name))


def check_unused(folder: Path) -> None:
    """Raise `UsageError` when a folder holds the checkpoints of a training."""
    if any(_NAME.fullmatch(name) for name in os.listdir(str(folder))):
        raise UsageError(f"folder '{folder}' holds the checkpoints of a training",
                         f"continue it with 'ipucnn restore --checkpoint-path {folder}', or "
                         "choose another folder")
