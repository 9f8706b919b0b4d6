"""Finds and orders the checkpoints in a folder by their names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List

from ipucnn.core.documents import read_mapping
from ipucnn.core.errors import DataError, IpucnnError
from ipucnn.models.checkpoint_names import BEST, NAME
from ipucnn.models.store_paths import on_store, shown_path


class CheckpointError(IpucnnError):
    """A checkpoint that cannot be read or written."""


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
    found = []
    for name in names_in(folder):
        match = NAME.fullmatch(name)
        if match and not name.startswith("."):
            found.append(Entry(folder / name, match["run"], int(match["epoch"]),
                               int(match["step"] or 0), bool(match["averaged"])))
    runs = sorted({entry.run for entry in found})
    if len(runs) > 1:
        raise CheckpointError(f"folder '{shown_path(folder)}' has checkpoints of "
                              f"{len(runs)} trainings: " + ", ".join(runs), "name one file")
    kept = [entry for entry in found if averaged or not entry.averaged]
    # a checkpoint within epoch 3 comes before that at its end
    return sorted(kept, key=lambda e: (e.epoch, not e.step, e.step, e.averaged))


def names_in(folder: Path) -> List[str]:
    """Return the sorted names of the files in a folder; on a store, of its checkpoints.

    Raises:
        CheckpointError: the folder cannot be read.
    """
    stored = on_store(folder)
    try:
        return sorted(os.listdir(str(folder))) if stored is None else stored.names()
    except DataError as error:
        raise CheckpointError(error.message, error.hint) from error
    except OSError as error:
        raise CheckpointError(f"cannot list folder '{folder}': {error.strerror}",
                              "name the folder of a training's checkpoints") from error


def best_of(folder: Path) -> Dict[str, Any]:
    """Return the record of the best validation in a folder; empty without one."""
    return read_mapping(folder / BEST)
