"""Reads and writes checkpoints: versioned files of tensors and plain types, written atomically.

Nothing in a file depends on the clock: two runs of one training write the same bytes.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
import zipfile
import zlib
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Dict, Mapping, Optional, Tuple, cast

import torch

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.training_session import StateDict
from ipucnn.core.registry.registry import registry
from ipucnn.models.card import ModelCard
from ipucnn.models.checkpoint_files import CheckpointError
from ipucnn.models.weights_card import CARD, card_in
from ipucnn.models.weights_file import read_checkpoint

FORMAT = "ipucnn.checkpoint/1"


@dataclass(frozen=True)
class Position:
    """The position of a training.

    Attributes:
        epoch: completed epochs.
        call: host calls of the current epoch.
        consumed: samples of the epoch's order used by them.
        update: weight updates in total.
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
        position: the position of the training.
        weights: weights by the model's own names.
        ema: weights of the moving average, if there is one.
        session: what `TrainingSession.state` returned.
        progress: the job's running figures.
        options: of the training, as plain types.
        class_names: names of the outputs.
        versions: of the packages that wrote it.
        card: of the model; None in files written before cards existed.
        data: description of the training images, to compare with those of a restored training.
        path: the file it was read from.
        add_classes: a training that continues from it may add classes; not saved.
        grown: it has got outputs for added classes since it was read; not saved.
    """

    model: str
    dataset: str
    position: Position
    weights: StateDict
    ema: Optional[StateDict] = None
    session: Dict[str, Any] = field(default_factory=dict)
    progress: Dict[str, Any] = field(default_factory=dict)
    options: Dict[str, Any] = field(default_factory=dict)
    class_names: Tuple[str, ...] = ()
    versions: Dict[str, str] = field(default_factory=dict)
    card: Optional[ModelCard] = None
    data: Dict[str, Any] = field(default_factory=dict)
    path: Optional[Path] = None
    add_classes: bool = False
    grown: bool = False

    @property
    def name(self) -> str:
        """The name of its file."""
        epoch, call = self.position.epoch, self.position.call
        where = f"{epoch + 1}.step{self.position.update}" if call else str(epoch)
        return f"{self.model}_{self.dataset}_{where}.pt".replace(":", "-").replace("/", "-")


def save(checkpoint: Checkpoint, folder: Path, name: str = "") -> Path:
    """Write a checkpoint and return its path.

    It is written to a temporary file in the folder, synced, and renamed.

    Raises:
        CheckpointError: it cannot be written; nothing is left behind.
    """
    content = {
        "format": FORMAT, "model": dict(checkpoint.weights), "model_name": checkpoint.model,
        "dataset": checkpoint.dataset, "position": asdict(checkpoint.position),
        "ema": checkpoint.ema, "session": _Typed(checkpoint.session),
        "progress": checkpoint.progress,
        "options": checkpoint.options, "class_names": list(checkpoint.class_names),
        "versions": checkpoint.versions, "data": checkpoint.data}
    if checkpoint.card is not None:
        content[CARD] = checkpoint.card.as_plain()
    target = folder / (name or checkpoint.name)
    partial = ""
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp",
                                           dir=str(folder))
        with os.fdopen(handle, "wb") as file:
            sink = _Sink(file)
            try:
                torch.save(_canonical(content), cast(BinaryIO, sink))
            except RuntimeError as error:  # torch's error for a failed write
                raise (sink.failed or error) from error
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, str(target))
        _sync(folder)
    except (OSError, RuntimeError) as error:
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
    content = read_content(path)
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
        ema=content["ema"], session=content["session"], progress=content["progress"],
        options=content["options"], class_names=tuple(content["class_names"]),
        versions=content["versions"], card=card_in(content, path, registry()),
        data=content.get("data", {}), path=path)


class _Sink:
    """An output file that records the cause of a failure, which torch does not report."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failed: Optional[OSError] = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failed = self.failed or error
            raise

    def flush(self) -> None:
        self._file.flush()


class _Typed:
    """A value whose tuples stay tuples in a file: an engine's state comes back as it was made."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _canonical(value: Any, typed: bool = False) -> Any:
    """Return a copy of plain types such that equal contents are written as equal bytes.

    Pickle writes an object that it has seen before as a reference to it, so the bytes depend on
    which equal strings and tuples are one object, and those of a restored training never are.
    """
    if isinstance(value, _Typed):
        return _canonical(value.value, typed=True)
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, Mapping):
        return {_canonical(key): _canonical(item, typed) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_canonical(item, typed) for item in value]
        # a tuple made anew is one object in one place, so it is never a reference
        return tuple(items) if typed and isinstance(value, tuple) else items
    return value


def read_content(path: Path) -> Dict[str, Any]:
    """Return the content of a checkpoint of any format, after verifying checksums.

    Raises:
        CheckpointError: it is missing, damaged or no checkpoint.
    """
    if os.path.isdir(str(path)):
        raise CheckpointError(f"'{path}' is a folder", "name a file")
    if not os.path.exists(str(path)):  # Path.exists raises for a name that is too long
        raise CheckpointError(f"there is no checkpoint '{path}'", "check its name")
    try:
        with zipfile.ZipFile(str(path)) as archive:
            bad = archive.testzip()  # torch.load checks no checksums
    except (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, RuntimeError,
            ValueError) as error:  # damage looks like encryption, other compression, other text ...
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


def _sync(folder: Path) -> None:
    """Make the renaming durable across a power failure, if the system supports it."""
    with suppress(OSError):
        handle = os.open(str(folder), os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
