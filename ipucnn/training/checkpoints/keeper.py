"""Keeps the checkpoint folder: retention, write failures, and files set aside on restore."""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional

from ipucnn.core.documents import write_json
from ipucnn.core.errors import DataError, IpucnnError, UsageError
from ipucnn.core.files import make_folder, new_file
from ipucnn.models.checkpoint_files import CheckpointError, Entry, best_of, entries, names_in
from ipucnn.models.checkpoint_names import BEST
from ipucnn.models.store_folder import free_name
from ipucnn.models.store_paths import on_store, shown_path
from ipucnn.training.checkpoints.checkpoint import Checkpoint, Position, not_finite, save
from ipucnn.training.checkpoints.checkpoint_folder import (
    PROBE,
    check_unused,
    remove_best,
    remove_stale,
)


def prepare(folder: Path) -> None:
    """Create the folder of a new training, and check that it is writable.

    Raises:
        UsageError: it cannot be created or written, or holds checkpoints of another training.
    """
    make_folder(str(folder), "--checkpoint-path")
    check_unused(folder)
    remove_stale(folder)
    remove_best(folder)
    _require_room(folder, 1, "--checkpoint-path")


def _require_room(folder: Path, size: int, option: str) -> None:
    """Raise `UsageError` when no file of `size` bytes can be written to a folder."""
    probe = folder / PROBE
    stored = on_store(folder)
    if stored is not None:
        stored.store.probe()
    try:
        with new_file(probe) as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
        probe.unlink()
        if shutil.disk_usage(str(folder)).free < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        with suppress(OSError):
            probe.unlink()
        raise UsageError(f"cannot write to folder '{folder}': {error.strerror}",
                         f"free disk space or grant permission there, or choose another '{option}'"
                         ) from error


def continue_in(folder: Path, restored: Path, position: Position,
                forget_best: bool = False) -> List[str]:
    """Prepare a folder for a restored training, and return the files set aside.

    Checkpoints newer than the restored one, intact or damaged, belong to another branch of the
    training: they are renamed, so that the newest one is always of this training.

    Args:
        folder: of the restored training.
        restored: the checkpoint from which it continues; the user may have renamed it.
        position: of the training in it.
        forget_best: also set the record of the best validation aside.

    Raises:
        UsageError: the folder cannot be written, or as in `prepare`, for another folder than that
            of the restored checkpoint.
        CheckpointError: a file cannot be renamed.
    """
    if folder.resolve() != restored.parent.resolve():
        prepare(folder)
        return []
    _require_room(folder, restored.stat().st_size, "--checkpoint-output-dir")
    stored = on_store(folder)
    if stored is not None:
        stored.beside()
    paths = [entry.path for entry in entries(folder, averaged=True)
             if entry.path.name != restored.name and _is_later(entry, position)]
    if forget_best and (folder / BEST).exists():
        paths.append(folder / BEST)
    for path in paths:
        try:
            if stored is not None and path.name != BEST:
                stored.set_aside(path.name)
            else:
                os.replace(str(path), free_name(str(path), os.path.lexists))
        except DataError as error:
            raise CheckpointError(error.message, error.hint) from error
        except OSError as error:
            raise CheckpointError(f"cannot rename '{path}': {error.strerror}",
                                  "free disk space or grant permission there, or name another "
                                  "folder with '--checkpoint-output-dir'") from error
    return [path.name for path in paths]


def _is_later(entry: Entry, position: Position) -> bool:
    """Return whether a checkpoint is newer than a position, by its name."""
    epoch = position.epoch + bool(position.call)  # as in the name of a checkpoint there
    if entry.averaged:  # one up to this epoch belongs to this training, which writes it again
        return entry.epoch > epoch
    return (entry.epoch, not entry.step, entry.step) > (
        epoch, not position.call, position.update if position.call else 0)


class Keeper:
    """Writes checkpoints to a folder and removes expired ones; never what `best.json` names.

    Args:
        folder: the checkpoint folder.
        keep_last: number of latest epochs to keep; 0 keeps all.
        restored: the checkpoint in it from which the training resumes.

    Attributes:
        last_good: the last checkpoint that was written, or restored.
        failed: why the last attempt failed, or None.
    """

    def __init__(self, folder: Path, keep_last: int = 0, restored: Optional[Path] = None) -> None:
        self._folder = folder
        self._stored = on_store(folder)
        self._keep_last = keep_last
        self._best: Dict[str, Any] = best_of(folder) if restored else {}
        self._unwritten: Optional[IpucnnError] = None
        self.last_good: Optional[Path] = restored
        self.failed: Optional[CheckpointError] = None
        remove_stale(folder)

    def resume(self, figures: Mapping[str, Any], file: str) -> None:
        """Restore `best.json` to the time of the restored checkpoint, and remove expired files.

        A killed process may have written it for a validation that is repeated now, or may not have
        removed expired checkpoints.

        Args:
            figures: those of the best validation by then; empty without one.
            file: the checkpoint with its weights, if there is one.
        """
        if not file and self._best.get("epoch") == figures.get("epoch"):
            file = str(self._best.get("file", ""))  # missing in checkpoints of older versions
        if not figures:
            self._best = {}
            remove_best(self._folder)
        else:
            record = {"file": file if file in names_in(self._folder) else "", **figures}
            if record != self._best:
                self._best = record
                self._write_best()
        self._tidy()

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
            good = shown_path(self.last_good) if self.last_good else "none"
            return (f"{error.message}; the training continues and tries again; last good "
                    f"checkpoint: {good}")
        if self._unwritten:
            self._write_best()
        self._tidy()
        return warning

    def best(self, figures: Mapping[str, Any], file: str) -> Optional[str]:
        """Record the best validation in `best.json`; return a note for the user, or None.

        Args:
            figures: metric, value, epoch and weights.
            file: the checkpoint with its weights; empty without one.
        """
        self._best = {"file": file, **figures}
        self._write_best()
        if self._unwritten:
            return f"{self._unwritten.message}; it is tried again with the next checkpoint"
        self._tidy()  # the previous best checkpoint
        return None

    def finish(self) -> Optional[IpucnnError]:
        """Return the error if `best.json` or the files of loggers still cannot be written."""
        if self._unwritten:
            self._write_best()
        elif self._stored is not None:
            try:
                self._send()
            except IpucnnError as error:
                return error
        return self._unwritten

    def _write_best(self) -> None:
        try:
            write_json(str(self._folder / BEST), self._best)
            self._send()
            self._unwritten = None
        except IpucnnError as error:
            self._unwritten = error

    def _send(self) -> None:
        """Upload changed files beside the checkpoints, if the folder is on a store.

        Raises:
            DataError: it cannot be written.
        """
        if self._stored is not None:
            self._stored.send()

    def _folder_again(self) -> Optional[str]:
        there = self._folder.is_dir()
        if self._stored is not None:  # no other process uses the copies
            return None
        if there and (self.last_good is None or self.last_good.exists()):
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CheckpointError(f"cannot make folder '{self._folder}': {error.strerror}",
                                  "free disk space or grant permission there") from error
        self.last_good = None
        return f"folder '{self._folder}' was {'emptied' if there else 'deleted or renamed'}: " \
               "the earlier checkpoints are no longer there"

    def _tidy(self) -> None:
        """Remove expired checkpoints; the same ones however often it is called."""
        if self._unwritten:
            return  # `best.json` may name any of them
        with suppress(CheckpointError, DataError):  # they are removed later
            found = entries(self._folder)
            whole = [entry for entry in found if not entry.step]
            gone = [entry for entry in found if entry.step]
            if self._keep_last:
                gone += whole[:-self._keep_last]
            kept = (self._best.get("file"), self.last_good.name if self.last_good else "")
            gone = [entry for entry in gone if entry.path.name not in kept]
            for entry in gone:
                if self._stored is not None:
                    self._stored.discard(entry.path.name)
                    continue
                with suppress(OSError):  # errors must not end a training
                    entry.path.unlink()
            if gone:
                self._send()


def _require_finite(checkpoint: Checkpoint, folder: Path) -> None:
    name = not_finite(checkpoint.weights)
    if name is not None:
        raise CheckpointError(
            f"checkpoint '{folder / checkpoint.name}' is not written: {name!r} is not finite",
            "use a lower '--lr'")
