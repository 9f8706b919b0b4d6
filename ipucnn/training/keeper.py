"""Keeps the checkpoint folder: retention, write failures, and files set aside on restore."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any, List, Mapping, Optional

import torch

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.files import (
    LARGEST_JSON,
    make_folder,
    parsed_json,
    read_limited,
    write_json,
)
from ipucnn.models.checkpoint_files import BEST, CheckpointError, Entry, entries
from ipucnn.training.checkpoint_folder import check_unused, remove_stale
from ipucnn.training.checkpoints import Checkpoint, save


def prepare(folder: Path) -> None:
    """Create the folder of a new training, and check that it is writable.

    Raises:
        UsageError: it cannot be created or written, or holds checkpoints of another training.
    """
    make_folder(str(folder), "--checkpoint-path")
    check_unused(folder)
    remove_stale(folder)
    probe = folder / ".writable"
    try:
        with probe.open("wb") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
    except OSError as error:
        with suppress(OSError):
            probe.unlink()
        raise UsageError(f"cannot write to folder '{folder}': {error.strerror}",
                         "make room or permission there, or choose another "
                         "'--checkpoint-path'") from error


def continue_in(folder: Path, restored: Path, forget_best: bool = False) -> List[str]:
    """Prepare a folder for a restored training, and return the files set aside.

    Checkpoints newer than the restored one, intact or damaged, belong to another branch of the
    training: they are renamed, so that the newest one is always of this training.

    Args:
        folder: of the restored training.
        restored: the checkpoint from which it continues.
        forget_best: also set the record of the best validation aside.

    Raises:
        UsageError: as in `prepare`, for another folder than that of the restored checkpoint.
        CheckpointError: a file cannot be renamed.
    """
    if folder.resolve() != restored.parent.resolve():
        prepare(folder)
        return []
    found = entries(folder, averaged=True)
    names = [entry.path.name for entry in found]
    later = found[names.index(restored.name) + 1:] if restored.name in names else []
    paths = [entry.path for entry in later]
    if forget_best and (folder / BEST).exists():
        paths.append(folder / BEST)
    for path in paths:
        try:
            os.replace(str(path), f"{path}{ASIDE}")
        except OSError as error:
            raise CheckpointError(f"cannot rename '{path}': {error.strerror}",
                                  "make room or permission there, or name another folder with "
                                  "'--checkpoint-output-dir'") from error
    return [path.name for path in paths]


ASIDE = ".superseded"
"""Suffix added to the names of checkpoints that a restored training sets aside."""


class Keeper:
    """Writes checkpoints to a folder and removes expired ones.

    Args:
        folder: the checkpoint folder.
        keep_last: number of latest epochs to keep; 0 keeps all.
        keep_best: never remove the best one.
        restored: the checkpoint from which the training resumes.

    Attributes:
        last_good: the last checkpoint that was written, or restored.
        failed: why the last attempt failed, or None.
    """

    def __init__(self, folder: Path, keep_last: int = 0, keep_best: bool = False,
                 restored: Optional[Path] = None) -> None:
        self._folder = folder
        self._keep_last, self._keep_best = keep_last, keep_best
        self._best: Optional[str] = _read_best(folder)
        self.last_good: Optional[Path] = restored
        self.failed: Optional[CheckpointError] = None
        remove_stale(folder)

    def save(self, checkpoint: Checkpoint) -> Optional[str]:
        """Write a checkpoint; return a note for the user, or None.

        A failure is not raised, because the training can continue without this file. Older files
        are removed only after the new one is written.
        """
        self.failed = None
        try:
            _require_finite(checkpoint, self._folder)
            warning = self._folder_again()
            self.last_good = save(checkpoint, self._folder)
        except CheckpointError as error:
            self.failed = error
            return (f"{error.message}; training goes on and tries again; last good checkpoint: "
                    f"{self.last_good or 'none'}")
        self._remove(bool(checkpoint.position.call))
        return warning

    def best(self, figures: Mapping[str, Any], saved: bool) -> None:
        """Record the best validation in `best.json`.

        Args:
            figures: metric, value, epoch and weights.
            saved: whether the last checkpoint is of this epoch; otherwise there is none.
        """
        self._best = self.last_good.name if saved and self.last_good else ""
        with suppress(IpucnnError):  # it must never end a training
            write_json(str(self._folder / "best.json"), {"file": self._best, **figures})

    def _folder_again(self) -> Optional[str]:
        there = self._folder.is_dir()
        if there and (self.last_good is None or self.last_good.exists()):
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"cannot make folder '{self._folder}': {error.strerror}",
                                  "make room or permission there") from error
        self.last_good = None
        return f"folder '{self._folder}' was {'emptied' if there else 'deleted'}: its earlier " \
               "checkpoints are lost"

    def _remove(self, within_epoch: bool) -> None:
        with suppress(CheckpointError):
            found = entries(self._folder)
            partial = [entry for entry in found if entry.step]
            whole = [entry for entry in found if not entry.step]
            gone = [entry for entry in partial
                    if not within_epoch or entry.path != self.last_good]
            if self._keep_last:
                gone += whole[:-self._keep_last]
            for entry in gone:
                if not self._stays(entry):
                    with suppress(OSError):  # it must never end a training
                        entry.path.unlink()

    def _stays(self, entry: Entry) -> bool:
        return self._keep_best and entry.path.name == self._best


def _require_finite(checkpoint: Checkpoint, folder: Path) -> None:
    for name, value in checkpoint.weights.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"checkpoint '{folder / checkpoint.name}' is not written: {name!r} is not finite",
                "use a lower '--lr'")


def _read_best(folder: Path) -> Optional[str]:
    try:
        return str(parsed_json(read_limited(folder / "best.json", LARGEST_JSON))["file"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
