"""Reads and writes checkpoints: versioned files of tensors and plain types, written atomically.

Nothing in a file depends on the clock: two runs of one training write the same bytes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Dict, Mapping, Optional, Tuple, cast

import torch

from ipucnn.core.errors import DataError, PluginError
from ipucnn.core.execution.training_session import StateDict, TrainingSession
from ipucnn.core.files import kind_of
from ipucnn.core.registry.registry import registry
from ipucnn.core.staging import staged
from ipucnn.models.card import ModelCard
from ipucnn.models.checkpoint_content import CARD, FORMAT, damaged, read_content
from ipucnn.models.checkpoint_files import CheckpointError
from ipucnn.models.checkpoint_names import NAME
from ipucnn.models.old_checkpoints import OLD_WEIGHTS
from ipucnn.models.store_paths import on_store
from ipucnn.models.weights_card import card_in
from ipucnn.training.checkpoints.plain_values import Typed, plain
from ipucnn.training.metrics.figures import Figures


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
        model, dataset: canonical names; that of the model as `Registry.name_of` returns it.
        position: the position of the training.
        weights: weights by the model's own names.
        ema: weights of the moving average, if there is one.
        session: the result of `TrainingSession.state`.
        progress: the job's running figures.
        options: of the training, as plain types.
        class_names: names of the outputs.
        versions: of the packages that wrote it.
        card: the model card; None in files of earlier versions without cards.
        data: description of the training images, to compare with those of a restored training.
        path: the file it was read from.
        add_classes: whether a training that continues from it may add classes; not saved.
        extra: whether it is named like a checkpoint within the next epoch although it is at the end
            of one, so that the next checkpoint replaces it; not saved.
        grown: whether outputs for added classes were added after reading; not saved.
        run: the beginning of the names of all checkpoints of the training (`run_of`); not saved.
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
    extra: bool = False
    grown: bool = False
    run: str = ""

    @property
    def name(self) -> str:
        """The name of its file."""
        return file_name(self.run or run_of(self.model, self.dataset), self.position, self.extra)


def run_of(model: str, dataset: str, restored: Optional[Checkpoint] = None) -> str:
    """Return the beginning of the names of a training's checkpoints.

    A restored training keeps that of its checkpoint, although the dataset may now have another
    format, and a plugin another name: a folder has the checkpoints of one training.

    Args:
        model: its name.
        dataset: its name.
        restored: the checkpoint from which the training continues.
    """
    named = NAME.fullmatch(restored.path.name) if restored and restored.path else None
    if named:
        return named["run"]
    bare = model.rpartition(":")[2]  # that of a new checkpoint may have a distribution
    return f"{bare}_{dataset}".replace(":", "-").replace("/", "-")


def file_name(run: str, position: Position, extra: bool = False) -> str:
    """Return the name of the file of a checkpoint; see `run_of` and `Checkpoint.extra`."""
    within = extra or position.call
    where = f"{position.epoch + 1}.step{position.update}" if within else str(position.epoch)
    return f"{run}_{where}.pt"


def save(checkpoint: Checkpoint, folder: Path, name: str = "") -> Path:
    """Write a checkpoint and return its path.

    It is written to a temporary file in the folder, synced, and renamed. If the folder contains the
    copies of a folder on a store, the file is then uploaded.

    Raises:
        CheckpointError: it cannot be written; nothing is left behind.
        PluginError: the state of a plugin holds what a checkpoint cannot contain.
    """
    content = _content(checkpoint)
    target = folder / (name or checkpoint.name)
    if kind_of(target):
        raise CheckpointError(f"cannot write checkpoint '{target}': it is {kind_of(target)}",
                              "rename it, or choose another folder")
    try:
        with staged(target) as partial, partial.open("wb") as file:
            sink = _Sink(file)
            try:
                torch.save(content, cast(BinaryIO, sink))
            except BaseException as error:  # torch's error for a failed write
                raise (sink.failed or error) from error
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise CheckpointError(f"cannot write checkpoint '{target}': {reason}",
                              "free disk space or grant permission there") from error
    stored = on_store(folder)
    if stored is not None:
        try:
            stored.send(target.name)
        except (DataError, OSError) as error:
            reason = error.message if isinstance(error, DataError) else str(error)
            raise CheckpointError(f"{reason}; a copy is in '{target}'",
                                  "the next checkpoint is tried again") from error
    return target


def not_finite(weights: StateDict) -> Optional[str]:
    """Return the name of the first tensor with values that are not finite, or None."""
    return next((name for name, value in weights.items() if value.is_floating_point()
                 and not bool(torch.isfinite(value).all())), None)


def check(checkpoint: Checkpoint) -> None:
    """Check that a checkpoint could be written and read again, without writing it.

    Raises:
        PluginError: as `save` does.
    """
    _content(checkpoint)


def _content(checkpoint: Checkpoint) -> Dict[str, Any]:
    """Return the content of the file of a checkpoint."""
    content = {
        "format": FORMAT, "model": dict(checkpoint.weights), "model_name": checkpoint.model,
        "dataset": checkpoint.dataset, "position": asdict(checkpoint.position),
        "ema": checkpoint.ema, "session": Typed(checkpoint.session),
        "progress": checkpoint.progress,
        "options": checkpoint.options, "class_names": list(checkpoint.class_names),
        "versions": checkpoint.versions, "data": checkpoint.data}
    if checkpoint.card is not None:
        content[CARD] = checkpoint.card.as_plain()
    try:
        found: Dict[str, Any] = plain(content)
    except PluginError as error:
        of_optimizer = "['session']['optimizer']" in error.message
        kind = "optimizer" if of_optimizer else "backend"
        name = checkpoint.options.get(kind)
        if name is None or "['session']" not in error.message:
            raise
        raise PluginError(f"the state of {kind} {name!r} cannot be saved: {error.message}",
                          error.hint) from error
    return found


def load(path: Path) -> Checkpoint:
    """Read a checkpoint to continue from.

    Raises:
        CheckpointError: it is missing, damaged, an average, or of an old application.
    """
    content = read_content(path)
    if content.get("format") != FORMAT:
        if isinstance(content.get(OLD_WEIGHTS), dict):
            raise CheckpointError(
                f"'{path}' was written by an old application and holds weights only",
                f"start from them with 'ipucnn train --weights {path}'")
        raise CheckpointError(f"'{path}' is not a checkpoint of this version "
                              f"({content.get('format')!r}, expected {FORMAT!r})",
                              "use the ipucnn that wrote it, or a newer one")
    if not content["session"]:
        raise CheckpointError(f"'{path}' is an average and cannot be trained on",
                              f"start from its weights with 'ipucnn train --weights {path}'")
    _check_progress(content["progress"], path)
    return Checkpoint(
        model=content["model_name"], dataset=content["dataset"],
        position=Position(**content["position"]), weights=content["model"],
        ema=content["ema"], session=content["session"], progress=content["progress"],
        options=content["options"], class_names=tuple(content["class_names"]),
        versions=content["versions"], card=card_in(content, path, registry()),
        data=content.get("data", {}), path=path)


def load_session(session: TrainingSession, checkpoint: Checkpoint) -> None:
    """Load the state in a checkpoint into a training session.

    Raises:
        CheckpointError: it is the state of another network or optimizer.
    """
    try:
        session.load(checkpoint.weights, checkpoint.session, checkpoint.ema)
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError,
            ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise damaged(checkpoint.path or Path(checkpoint.name),
                      f"its state does not fit its options: {type(error).__name__}: {reason}"
                      ) from error


def _check_progress(progress: Mapping[str, Any], path: Path) -> None:
    """Raise `CheckpointError` when the running figures of a training are not of their types."""
    for name, default in asdict(Figures()).items():
        value = progress.get(name, default)
        wanted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, wanted):
            raise damaged(path, f"'{name}' of its progress is {type(value).__name__}")
    try:
        Figures.from_plain(progress)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise damaged(path, f"its progress is not that of a training: {error}") from error


class _Sink:
    """An output file that records the cause of a failure, which torch does not report.

    torch converts any exception raised here, even an interrupt, to a `RuntimeError`.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failed: Optional[BaseException] = None

    def write(self, data: bytes) -> int:
        if self.failed is not None:  # torch continues to write after an error
            return len(data)
        try:
            return self._file.write(data)
        except BaseException as error:
            self.failed = error
            raise

    def flush(self) -> None:
        self._file.flush()

