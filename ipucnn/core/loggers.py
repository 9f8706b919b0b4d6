"""The interface of loggers, which record a training in files or an experiment tracker.

Only the first instance of a training has loggers. A failing logger does not stop a training: if it
raises an exception, it is reported by name and disabled, and the training continues. The exceptions
are an `IpucnnError` raised by `Logger.start`, which prevents the training, and one raised by
`Logger.finish`, with which the training ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

COMPLETED, STOPPED, FAILED = "completed", "stopped", "failed"
"""The final status of a training: all epochs or early stopping; a signal; an error."""


@dataclass(frozen=True)
class RunInfo:
    """Information about a training that a logger receives at the start.

    Attributes:
        options: the resolved options of the command, plain types by name.
        folder: the log folder; it exists.
        rows: rows that were recorded before the checkpoint that is restored. A logger that has
            more of them drops the later ones, which the training records again. 0 for a new
            training.
        restored: the checkpoint from which the training resumes; None for a new training.
        update: weight updates before that checkpoint.
        card: the model card, plain types by name.
        validated: the last epoch whose validation was recorded before that checkpoint.
    """

    options: Dict[str, Any]
    folder: Path
    rows: int = 0
    restored: Optional[Path] = None
    update: int = 0
    card: Dict[str, Any] = field(default_factory=dict)
    validated: int = 0

    def precedes(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row was recorded before the checkpoint that is restored.

        A log folder does not have the first of the `rows` if the training began in another one.
        """
        if row.get("kind") == "validation":
            return bool(row.get("epoch", 0) <= self.validated)
        return bool(row.get("update", 0) <= self.update)


class Logger(ABC):
    """Records one training. The methods are called in the order `start`, others, `finish`.

    Attributes:
        name: canonical name of its record, for messages.
    """

    name: str = ""

    @abstractmethod
    def start(self, run: RunInfo) -> None:
        """Start recording a training.

        Raises:
            IpucnnError: this training cannot be recorded; the training is then not started.
        """

    @abstractmethod
    def row(self, row: Dict[str, Any]) -> Optional[str]:
        """Record a row of metrics.

        Args:
            row: plain values by name; the logger may store it. `kind` is `train` (with `epoch`, a
                fraction, `update`, `loss`, `accuracy`, `learning_rate`, ...) or `validation` (with
                `epoch`, `update`, `weights`, `loss`, `top1`, `top5`, ...). Accuracies are in per
                cent; a value that is not known is None.

        Returns:
            A note for the user if the row could not be recorded, else None.
        """

    def checkpoint(self, path: Path, epoch: int, update: int) -> None:  # noqa: B027 - optional
        """Record that a checkpoint was written.

        Args:
            path: of the file.
            epoch: number of completed epochs.
            update: number of weight updates.
        """

    def best(self, figures: Mapping[str, Any]) -> None:  # noqa: B027 - optional
        """Record that the last validation was the best so far.

        Args:
            figures: `metric`, `value`, `epoch` and `weights` (`raw`, or `ema` for the moving
                average).
        """

    def confusion(self, figures: Mapping[str, Any],  # noqa: B027 - optional
                  confusion: Sequence[Sequence[int]], names: Sequence[str]) -> Optional[str]:
        """Record the confusion matrix of a validation, after its row.

        Args:
            figures: the row.
            confusion: images by true class (row) and predicted class.
            names: of the classes.

        Returns:
            As `row` does.
        """

    def samples(self, images: Any, names: Sequence[str],  # noqa: B027 - optional
                update: int) -> Optional[str]:
        """Record a few training images after augmentation, once in a training.

        Args:
            images: numpy array, uint8, `(n, height, width, 3)`.
            names: the class of each.
            update: number of weight updates.

        Returns:
            As `row` does.
        """

    def finish(self, status: str,  # noqa: B027 - optional
               result: Mapping[str, Any]) -> Optional[str]:
        """Finish recording; no other method is called afterwards.

        Args:
            status: `COMPLETED`, `STOPPED` or `FAILED`.
            result: the output of `ipucnn train --json`; empty if there is none.

        Returns:
            A note for the user if something could not be recorded, else None.

        Raises:
            IpucnnError: rows are lost; a training that did not fail ends with this error.
        """
