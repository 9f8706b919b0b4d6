"""What a training leaves on disk: checkpoints, metrics, the options it was given.

Of several instances only the first writes; the others know nothing of the disk.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Dict, Optional

from ipucnn.core.files import make_folder, write_text
from ipucnn.core.options import TrainOptions
from ipucnn.training import keeper as keeping
from ipucnn.training.checkpoints import Checkpoint, CheckpointError
from ipucnn.training.keeper import Keeper
from ipucnn.training.metrics import MetricsWriter
from ipucnn.training.train_result import Listener

RETRY_SECONDS = 60.0
"""After a checkpoint that could not be written, the next attempt."""


def make_ready(folder: Path, restored: Optional[Checkpoint], options: TrainOptions,
               listener: Listener) -> None:
    """Make a folder ready for the checkpoints of a training.

    Raises:
        IpucnnError: it cannot be made, or holds checkpoints of another training.
    """
    if restored is None or restored.path is None:
        keeping.prepare(folder)
    elif restored.position.epoch < options.epoch:
        aside = keeping.continue_in(folder, restored.path)
        if aside:
            listener.note(f"newer checkpoints are set aside as '*{keeping.ASIDE}': "
                          + ", ".join(aside))


class Records:
    """The files of one training; this class writes none, as the other instances do.

    Attributes:
        log_dir: folder of metrics and options.
        last_good: the last checkpoint that was written, or restored.
        failed: why the last checkpoint could not be written, or None.
    """

    log_dir: Optional[Path] = None
    last_good: Optional[Path] = None
    failed: Optional[CheckpointError] = None

    def due(self, minutes: Optional[float]) -> bool:  # noqa: ARG002
        """Return whether it is time for a checkpoint, or to try a failed one again."""
        return False

    def save(self, checkpoint: Checkpoint) -> Optional[str]:  # noqa: ARG002
        """Write a checkpoint; return what the user should know, or None."""
        return None

    def best(self, figures: Dict[str, Any], saved: bool) -> None:
        """Record which validation was best, and whether the last checkpoint is what it saw."""

    def row(self, row: Dict[str, Any]) -> Optional[str]:  # noqa: ARG002
        """Write a row of metrics; return what the user should know, or None."""
        return None


class FileRecords(Records):
    """The files of one training, written.

    Args:
        options: of the training.
        folder: of the checkpoints; None writes none.
        restored: the checkpoint that is continued from.
        rows: rows of the metrics that were written before it.
    """

    def __init__(self, options: TrainOptions, folder: Optional[Path],
                 restored: Optional[Checkpoint], rows: int) -> None:
        inherited = restored.path if restored and restored.path and folder \
            and restored.path.parent.resolve() == folder.resolve() else None
        self._keeper = Keeper(folder, options.keep_last, options.keep_best,
                              inherited) if folder else None
        self.last_good = inherited
        self.log_dir = _log_dir(options, folder)
        self._metrics = MetricsWriter(self.log_dir, rows)
        self._saved_at = self._retry_at = time.monotonic()
        _write_options(self.log_dir, options)

    def due(self, minutes: Optional[float]) -> bool:
        """See `Records.due`."""
        now = time.monotonic()
        return bool((minutes and now - self._saved_at >= 60 * minutes)
                    or (self.failed and now >= self._retry_at))

    def save(self, checkpoint: Checkpoint) -> Optional[str]:
        """See `Records.save`."""
        if self._keeper is None:
            return None
        warning = self._keeper.save(checkpoint)
        self.failed, self.last_good = self._keeper.failed, self._keeper.last_good
        self._saved_at = time.monotonic()
        self._retry_at = self._saved_at + RETRY_SECONDS
        return warning

    def best(self, figures: Dict[str, Any], saved: bool) -> None:
        """See `Records.best`."""
        if self._keeper is not None:
            self._keeper.best(figures, saved)

    def row(self, row: Dict[str, Any]) -> Optional[str]:
        """See `Records.row`."""
        self._metrics.add(row)
        if not self._metrics.failed:
            return None
        return self._metrics.failed + "; it is tried again with the next row"


def _log_dir(options: TrainOptions, folder: Optional[Path]) -> Path:
    name = f"{options.model}_{options.data}_{time.strftime('%Y%m%d-%H%M%S')}".replace(":", "-")
    path = options.log_dir or (str(folder) if folder else str(Path("logs") / name))
    return Path(make_folder(path, "--log-dir"))


def _write_options(folder: Path, options: TrainOptions) -> None:
    import yaml

    write_text(str(folder / "options.yaml"), yaml.safe_dump(options.as_dict(), sort_keys=False))
