"""Checkpoints: one versioned file of tensors and plain types, whole or not there.

Nothing in a file depends on the clock: two runs of one training write the same bytes.
"""

from __future__ import annotations

import os
import re
import tempfile
import zipfile
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch  # noqa: TID253

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.training.session import StateDict
from ipucnn.core.weights_file import read_checkpoint

FORMAT = "ipucnn.checkpoint/1"

_NAME = re.compile(r"(?P<run>.+)_(?P<epoch>\d+)(?:\.step(?P<step>\d+))?"
                   r"(?P<averaged>_averaged)?\.pt")
_TEMPORARY = re.compile(r"\..+\.pt\.\w+\.tmp")


class CheckpointError(IpucnnError):
    """A checkpoint that cannot be read or written."""


@dataclass(frozen=True)
class Position:
    """How far a training is.

    Attributes:
        epoch: whole epochs.
        call: host calls of the epoch under way.
        consumed: samples of its order that they used.
        update: weight updates in all.
    """

    epoch: int
    call: int = 0
    consumed: int = 0
    update: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """Everything that a restored training needs.

    Attributes:
        model, dataset: canonical names.
        position: how far it is.
        weights: by the model's own names.
        session: what `TrainingSession.state` returned.
        progress: the job's running figures.
        options: of the training, as plain types.
        class_names: what the outputs mean.
        versions: of the packages that wrote it.
        path: the file it was read from.
    """

    model: str
    dataset: str
    position: Position
    weights: StateDict
    session: Dict[str, Any] = field(default_factory=dict)
    progress: Dict[str, Any] = field(default_factory=dict)
    options: Dict[str, Any] = field(default_factory=dict)
    class_names: Tuple[str, ...] = ()
    versions: Dict[str, str] = field(default_factory=dict)
    path: Optional[Path] = None

    @property
    def name(self) -> str:
        """The name of its file."""
        epoch, call = self.position.epoch, self.position.call
        where = f"{epoch + 1}.step{self.position.update}" if call else str(epoch)
        return f"{self.model}_{self.dataset}_{where}.pt".replace(":", "-").replace("/", "-")


@dataclass(frozen=True)
class StoredModel:
    """A model in a checkpoint of ours or of the old applications.

    Attributes:
        name, dataset: canonical names of the model and its data.
        epoch: epochs it was trained for, the one under way included.
        weights: by name, float32; an old file's may still have wrapper prefixes.
        ema: those of the moving average, if there is one.
        options: of its training, as far as they are ours.
        class_names: what the outputs mean; empty in old files.
        old: whether an old application wrote it.
    """

    name: str
    dataset: str
    epoch: int
    weights: StateDict
    ema: Optional[StateDict]
    options: Dict[str, Any]
    class_names: Tuple[str, ...]
    old: bool = False


@dataclass(frozen=True)
class Entry:
    """A checkpoint by its file name.

    Attributes:
        path: the file.
        run: model and dataset, as the name has them.
        epoch: of the name.
        step: weight updates, for those written within an epoch; else 0.
        averaged: it is an average of others.
    """

    path: Path
    run: str
    epoch: int
    step: int = 0
    averaged: bool = False


def save(checkpoint: Checkpoint, folder: Path, name: str = "") -> Path:
    """Write a checkpoint and return its path.

    It is written to a temporary file in the folder, synced, and renamed.

    Raises:
        CheckpointError: it cannot be written; nothing is left behind.
    """
    content = {
        "format": FORMAT, "model": dict(checkpoint.weights), "model_name": checkpoint.model,
        "dataset": checkpoint.dataset, "position": asdict(checkpoint.position),
        "session": checkpoint.session, "progress": checkpoint.progress,
        "options": checkpoint.options, "class_names": list(checkpoint.class_names),
        "versions": checkpoint.versions}
    target = folder / (name or checkpoint.name)
    partial = ""
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp",
                                           dir=str(folder))
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, str(target))
        _sync(folder)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        if partial:
            with suppress(OSError):
                os.unlink(partial)
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CheckpointError(f"cannot write checkpoint '{target}': {reason}",
                              "make room or permission there") from error
    return target


def load(path: Path) -> Checkpoint:
    """Read a checkpoint to continue from.

    Raises:
        CheckpointError: it is missing, damaged, an average, or of an old application.
    """
    content = _content(path)
    if content.get("format") != FORMAT:
        if isinstance(content.get("model_state_dict"), dict):
            raise CheckpointError(
                f"'{path}' was written by an old application and holds weights only",
                f"start from them with 'ipucnn train --weights {path}'")
        raise CheckpointError(f"'{path}' is no checkpoint of this version "
                              f"({content.get('format')!r}, expected {FORMAT!r})",
                              "use the ipucnn that wrote it, or a newer one")
    if not content["session"]:
        raise CheckpointError(f"'{path}' is an average and cannot be trained on",
                              f"start from its weights with 'ipucnn train --weights {path}'")
    return Checkpoint(
        model=content["model_name"], dataset=content["dataset"],
        position=Position(**content["position"]), weights=content["model"],
        session=content["session"], progress=content["progress"], options=content["options"],
        class_names=tuple(content["class_names"]), versions=content["versions"], path=path)


def load_stored(path: Path) -> StoredModel:
    """Read the model in a checkpoint, of ours or of the old applications.

    Raises:
        CheckpointError: it is missing, damaged or no checkpoint.
    """
    content = _content(path)
    if content.get("format") == FORMAT:
        position = content["position"]
        return StoredModel(
            content["model_name"], content["dataset"],
            position["epoch"] + (1 if position["call"] else 0), content["model"],
            content["session"].get("ema_weights"), content["options"],
            tuple(content["class_names"]))
    weights = content.get("model_state_dict")
    options = content.get("opts") or content.get("args")
    if not isinstance(weights, dict) or not isinstance(options, Mapping):
        raise CheckpointError(f"'{path}' is no checkpoint",
                              "'ipucnn run --weights' takes files of weights alone")
    values = _translated(options)
    name, dataset = values.get("model"), values.get("data")
    if not name or not dataset:
        raise CheckpointError(f"'{path}' does not say of which model and dataset it is",
                              "'ipucnn run --weights' takes files of weights alone")
    return StoredModel(str(name), str(dataset), int(content.get("epoch", 0)),
                       {key: value.float() if value.is_floating_point() else value
                        for key, value in weights.items()}, None, values, (), old=True)


def replace_weights(path: Path, weights: StateDict) -> None:
    """Replace the weights in a checkpoint of ours.

    Raises:
        CheckpointError: it cannot be read or written.
    """
    stored, content = load_stored(path), _content(path)
    save(Checkpoint(stored.name, stored.dataset, Position(**content["position"]),
                    {name: value.detach().clone() for name, value in weights.items()},
                    content["session"], content["progress"], stored.options, stored.class_names,
                    content["versions"]), path.parent, path.name)


def entries(folder: Path, averaged: bool = False) -> List[Entry]:
    """Return the checkpoints in a folder, in the order of the training.

    Args:
        folder: where they are; other files are left out.
        averaged: whether averages count.

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
    """Return the newest whole checkpoint in a folder, and the damaged ones that are newer.

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
    """Remove what interrupted writes left behind."""
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


def moved(checkpoint: Checkpoint, position: Position) -> Checkpoint:
    """Return a checkpoint at another position."""
    return replace(checkpoint, position=position)


def _content(path: Path) -> Dict[str, Any]:
    if path.is_dir():
        raise CheckpointError(f"'{path}' is a folder", "name a file")
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint '{path}'", "check its name")
    try:
        with zipfile.ZipFile(str(path)) as archive:
            bad = archive.testzip()  # torch.load checks no checksums
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        if isinstance(error, zipfile.BadZipFile) and not _is_zip(path):
            bad = ""  # written by torch before 1.6
        else:
            raise _damaged(path, str(error)) from error
    if bad:
        raise _damaged(path, f"the checksum of {bad!r} is wrong")
    try:
        content = read_checkpoint(path)
    except IpucnnError as error:
        raise CheckpointError(error.message, error.hint) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"'{path}' is no checkpoint", "name a file that a training wrote")
    return content


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\3\4"


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"checkpoint '{path}' is damaged or incomplete: {reason}",
                           "use another one, or the folder: its newest whole checkpoint is taken")


def _translated(options: Mapping[str, Any]) -> Dict[str, Any]:
    """Return an old application's options by our names, as far as they are ours and valid."""
    from ipucnn.core.declaration import lookup
    from ipucnn.core.options import TrainOptions

    values: Dict[str, Any] = {}
    for spelling, value in options.items():
        found = lookup(TrainOptions, str(spelling))
        if found is None or found.option.backend_option or found.option.switch \
                or found.name.startswith("checkpoint"):
            continue
        with suppress(UsageError):
            values[found.name] = found.coerce(value)
    return values


def _sync(folder: Path) -> None:
    """Have the renaming survive a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(str(folder), os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
