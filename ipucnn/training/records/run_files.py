"""Records a training: writes checkpoints and calls its loggers.

Only the first of several instances has records; the others write nothing.
"""

from __future__ import annotations

import itertools
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from ipucnn.core.documents import json_text, parsed_json, read_mapping
from ipucnn.core.environment import describe
from ipucnn.core.errors import DataError, IpucnnError, UsageError
from ipucnn.core.execution.training_session import TrainingBatch
from ipucnn.core.files import make_folder, write_text
from ipucnn.core.log_folder import LOGS, METRICS, RUNNING, TRAINING, VALIDATION, WRITTEN
from ipucnn.core.loggers import RunInfo
from ipucnn.core.names import without_secrets
from ipucnn.core.progress import Listener, Status
from ipucnn.data.remote.stores import is_store
from ipucnn.models.checkpoint_files import CheckpointError
from ipucnn.models.checkpoint_names import NAME
from ipucnn.models.store_folder import SUPERSEDED, free_name
from ipucnn.models.store_paths import on_store, place_of
from ipucnn.training.checkpoints import keeper as keeping
from ipucnn.training.checkpoints.checkpoint import Checkpoint
from ipucnn.training.checkpoints.keeper import Keeper
from ipucnn.training.metrics.figures import Figures
from ipucnn.training.metrics.validation import Validation
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.records.folder_lock import check_held, locked
from ipucnn.training.records.live_status import LiveStatus
from ipucnn.training.records.shown_images import shown
from ipucnn.training.setup.idle_options import writes_checkpoints
from ipucnn.training.setup.run_loggers import Loggers

if TYPE_CHECKING:
    from ipucnn.training.setup.preparation import Prepared

RETRY_SECONDS = 60.0
"""Delay before a failed checkpoint is retried."""


@contextmanager
def ready(folder: Optional[Path], restored: Optional[Checkpoint], options: TrainOptions,
          listener: Listener) -> Iterator[None]:
    """Prepare the folders of a training, and keep other trainings out of them.

    Args:
        folder: of the checkpoints; None without any.
        restored: the checkpoint from which the training resumes.
        options: of the training.
        listener: receives notes.

    Raises:
        IpucnnError: a folder cannot be created, holds checkpoints of another training, or is in
            use by one.
    """
    checkpoints = "--checkpoint-output-dir" if restored is not None else "--checkpoint-path"
    with ExitStack() as held:
        for place, option in ((folder, checkpoints), (options.results.log_dir, "--log-dir")):
            if place:
                place = make_folder(str(place), option)
                held.enter_context(locked(Path(place), option, listener.note))
        if folder is None:
            pass
        elif restored is None or restored.path is None:
            keeping.prepare(folder)
        elif restored.position.epoch < options.optimisation.epochs:
            aside = keeping.continue_in(folder, restored.path, restored.position,
                                        restored.grown)
            if aside:
                listener.note("files that are not of this training were renamed to "
                              f"'*{SUPERSEDED}': " + ", ".join(aside))
        yield


def with_folder(prepared: Prepared) -> Tuple[TrainOptions, Optional[Path]]:
    """Return the options of a training and the folder of its checkpoints; None without any.

    If none is given, a new folder below `logs` contains the best and the last checkpoint, or the
    checkpoints to be averaged.
    """
    options = prepared.options
    place = options.checkpoints.checkpoint_path
    if not place and writes_checkpoints(options, prepared.data):
        place = prepared.instances.gather(
            "" if prepared.instances.index else str(new_folder(options)))[0]
        # the folder is not saved with the options, which may be used for another training
        options = options.with_values(keep_last=options.checkpoints.to_keep,
                                      keep_best=options.validation.mode == "during"
                                      and options.checkpoints.checkpoint_save_freq > 1)
    # the other processes only read
    return options, place_of(place, writes=not prepared.instances.index) if place else None


class Records:
    """The interface of records; this class records nothing, for all instances but the first.

    Attributes:
        log_dir: the log folder; None without loggers.
        last_good: the last checkpoint that was written, or restored.
        failed: why the last checkpoint could not be written, or None.
    """

    log_dir: Optional[Path] = None
    last_good: Optional[Path] = None
    failed: Optional[CheckpointError] = None

    def due(self, minutes: Optional[float]) -> bool:  # noqa: ARG002
        """Return whether a checkpoint, or the retry of a failed one, is due."""
        return False

    def save(self, checkpoint: Checkpoint) -> Optional[str]:  # noqa: ARG002
        """Write a checkpoint; return a note for the user, or None."""
        return None

    def best(self, figures: Dict[str, Any], file: str) -> None:
        """Record the best validation, and the checkpoint with its weights, if there is one."""

    def row(self, row: Dict[str, Any]) -> None:
        """Record a row of metrics."""

    def evidence(self, validation: Dict[str, Any]) -> None:
        """Record the last validation for a report; empty before the first one."""

    def confusion(self, validation: Validation, update: int) -> None:
        """Record the confusion matrix of a validation, if it has one."""

    def samples(self, batch: TrainingBatch, names: Sequence[str]) -> None:
        """Record a few images of the first batch of a training."""

    def progress(self, status: Status, facts: Mapping[str, Any]) -> None:
        """Write the current status for other processes, at most once per second."""

    def finish(self, status: str, result: Dict[str, Any]) -> Optional[IpucnnError]:  # noqa: ARG002
        """Finish recording, see `Logger.finish`; return what could not be recorded."""
        return None


class FileRecords(Records):
    """Records of the first instance: checkpoints in a folder, all else through loggers.

    Args:
        options: of the training.
        folder: of the checkpoints; None disables them.
        restored: the checkpoint from which the training resumes.
        rows: rows of metrics that were recorded before it.
        prepared: the training, with its loggers.
        report: receives notes for the user.

    Raises:
        IpucnnError: the log folder cannot be created, or a logger rejects the training.
    """

    def __init__(self, options: TrainOptions, folder: Optional[Path],
                 restored: Optional[Checkpoint], rows: int, prepared: Prepared,
                 report: Callable[[str], None]) -> None:
        inherited = restored.path if restored and restored.path and folder \
            and restored.path.parent.resolve() == folder.resolve() else None
        self._keeper = Keeper(folder, options.checkpoints.keep_last, inherited) if folder else None
        self._folder, self._report = folder, report
        if self._keeper is not None and restored is not None and inherited is not None:
            standing = Figures.from_plain(restored.progress).standing
            self._keeper.resume(standing.as_plain(), standing.file)
        self.last_good = inherited
        self._saved_at = self._retry_at = time.monotonic()
        self._loggers = Loggers(prepared.loggers, report)
        self._live: Optional[LiveStatus] = None
        self._unwritten: Set[str] = set()
        self._known: Dict[str, Any] = {}  # also of a training that ends without a result
        if prepared.loggers:
            self.log_dir = _log_dir(options, folder)
            continued = restored is not None and _is_record_of(self.log_dir, restored, options)
            aside = [] if continued else _set_aside(self.log_dir, folder, restored is None)
            if aside:
                report(f"'{self.log_dir}' contains the record of another training; renamed to "
                       f"'*{SUPERSEDED}': " + ", ".join(aside))
            elif rows and on_store(self.log_dir) is None \
                    and not any((self.log_dir / name).exists() for name in (TRAINING, METRICS)):
                report(f"'{self.log_dir}' has no record of this training, and a new one begins; "
                       "'--log-dir DIR' continues that in another folder")
            self._live = LiveStatus(self.log_dir)
            known = options.recorded()
            self._loggers.start(RunInfo(
                known, self.log_dir, rows, restored.path if restored else None,
                restored.position.update if restored else 0, prepared.built.card.as_plain(),
                _validated(restored)))
            self._known = {
                "format": "ipucnn.train/1", "model": options.network.model,
                "dataset": options.dataset.data, "options": known,
                "environment": describe()}
            self._document(TRAINING, {**self._known, "status": RUNNING})

    def due(self, minutes: Optional[float]) -> bool:
        """See `Records.due`."""
        now = time.monotonic()
        return bool((minutes and now - self._saved_at >= 60 * minutes)
                    or (self.failed and now >= self._retry_at))

    def save(self, checkpoint: Checkpoint) -> Optional[str]:
        """See `Records.save`."""
        if self._keeper is None:
            return None
        self._check_held()
        warning = self._keeper.save(checkpoint)
        self.failed, self.last_good = self._keeper.failed, self._keeper.last_good
        self._saved_at = time.monotonic()
        self._retry_at = self._saved_at + RETRY_SECONDS
        if self.last_good and not self.failed:
            position = checkpoint.position
            self._loggers.checkpoint(self.last_good, position.epoch, position.update)
        return warning

    def best(self, figures: Dict[str, Any], file: str) -> None:
        """See `Records.best`."""
        note = self._keeper.best(figures, file) if self._keeper is not None else None
        if note:
            self._report(note)
        self._loggers.best(figures)

    def row(self, row: Dict[str, Any]) -> None:
        """See `Records.row`."""
        self._check_held()
        self._loggers.row(row)

    def evidence(self, validation: Dict[str, Any]) -> None:
        """See `Records.evidence`."""
        if validation:
            self._document(VALIDATION, validation)

    def confusion(self, validation: Validation, update: int) -> None:
        """See `Records.confusion`."""
        if validation.confusion:
            self._loggers.confusion(
                {"kind": "validation", "update": update, **validation.figures()},
                validation.confusion, validation.class_names)

    def samples(self, batch: TrainingBatch, names: Sequence[str]) -> None:
        """See `Records.samples`."""
        if self._loggers.show_samples:
            self._loggers.samples(*shown(batch, names), 0)

    def progress(self, status: Status, facts: Mapping[str, Any]) -> None:
        """See `Records.progress`."""
        if self._live is not None:
            self._live.write(status, facts)

    def finish(self, status: str, result: Dict[str, Any]) -> Optional[IpucnnError]:
        """See `Records.finish`."""
        if self._live is not None:
            self._live.end(status, result)
        unrecorded = self._loggers.finish(status, result)
        try:
            self._check_held()
        except IpucnnError as error:
            return error
        self._document(TRAINING, {**self._known, "status": status, **result})
        return (self._keeper.finish() if self._keeper is not None else None) or unrecorded

    def _check_held(self) -> None:
        """Check that no other training uses the folders; see `check_held`."""
        for folder in filter(None, (self._folder, self.log_dir)):
            check_held(folder)

    def _document(self, name: str, value: Dict[str, Any]) -> None:
        """Write a document into the log folder; a failure is only noted, once while it lasts."""
        if self.log_dir is None:
            return
        try:
            write_text(str(self.log_dir / name), json_text(value) + "\n")
        except DataError as error:
            if name not in self._unwritten:
                self._report(f"{error.message}; the report will not show it")
            self._unwritten.add(name)
        else:
            self._unwritten.discard(name)


def _validated(restored: Optional[Checkpoint]) -> int:
    """Return the last epoch that was validated before a checkpoint."""
    if restored is None:
        return 0
    position = restored.position
    # older files do not contain it, and were written before the validation of their epoch
    return max(Figures.from_plain(restored.progress).validated,
               position.epoch if position.call else position.epoch - 1)


def _log_dir(options: TrainOptions, folder: Optional[Path]) -> Path:
    path = options.results.log_dir or folder
    return Path(make_folder(str(path), "--log-dir")) if path else new_folder(options)


def _is_record_of(log_dir: Path, restored: Checkpoint, options: TrainOptions) -> bool:
    """Return whether the record in a log folder is that of a restored training, or unreadable.

    Trainings are distinguished by the folder of their checkpoints, which may have been moved, and
    the seed. A record without a folder is of a training that has not been restored yet; all its
    options are compared.

    Args:
        log_dir: the log folder.
        restored: the checkpoint.
        options: of the training that continues from it.
    """
    record = without_secrets(read_mapping(log_dir / TRAINING).get("options"))
    saved = without_secrets(restored.options)
    if not isinstance(record, dict):
        return True
    place = record.get("checkpoint_path")
    if not place and not saved.get("checkpoint_path"):
        return bool(record == parsed_json(json_text(saved).encode()))
    now = without_secrets(options.checkpoints.checkpoint_path)
    before = saved.get("checkpoint_path")
    # a record elsewhere is that of the training from which this one was copied, or branches off
    own = f"{_resolved(str(log_dir))}/".startswith(f"{_resolved(now)}/") \
        or not _has_checkpoints(before)
    return record.get("seed") == saved.get("seed") and _resolved(place) in map(
        _resolved, (now, before) if own else (now,))


def _has_checkpoints(place: Optional[str]) -> bool:
    with suppress(OSError):  # there is no such folder
        return any(map(NAME.fullmatch, os.listdir(place or "")))
    return False


def _resolved(place: Optional[str]) -> str:
    return os.path.realpath(place) if place and not is_store(place) else (place or "").rstrip("/")


def _set_aside(log_dir: Path, folder: Optional[Path], new: bool) -> List[str]:
    """Rename the files of another training in a log folder; return their names.

    Those of a training that was killed before its first checkpoint in this folder are replaced by
    those of a new one: it is repeated.

    Raises:
        UsageError: a file cannot be renamed.
    """
    metrics = log_dir / METRICS
    if on_store(log_dir) is not None or not metrics.is_file() or not metrics.stat().st_size:
        return []
    if new and folder is not None and folder.resolve() == log_dir.resolve() \
            and read_mapping(log_dir / TRAINING).get("status") == RUNNING:
        return []
    names = [name for name in WRITTEN if (log_dir / name).is_file()]
    for name in names:
        path = str(log_dir / name)
        try:
            os.replace(path, free_name(path, os.path.lexists))
        except OSError as error:
            raise UsageError(f"cannot rename '{path}', which is of another training: "
                             f"{error.strerror}", "choose another '--log-dir'") from error
    return names


def new_folder(options: TrainOptions) -> Path:
    """Create a new folder for a training below `logs`, and return it.

    Raises:
        UsageError: it cannot be created.
    """
    begun = time.strftime("%Y%m%d-%H%M%S")
    name = f"{options.network.model}_{options.dataset.data}_{begun}".replace(":", "-")
    parent = make_folder(LOGS, "--log-dir")
    for number in itertools.count(1):  # two trainings may start in one second
        path = Path(LOGS) / (name.replace("/", "-") + (f"-{number}" if number > 1 else ""))
        try:
            path.mkdir()
            return path
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(f"cannot make a folder in {parent!r}: {error.strerror}",
                             "choose another one with '--log-dir' and '--checkpoint-path'"
                             ) from error
    raise AssertionError("unreachable")
