"""The interfaces for progress reports of jobs; `ipucnn.terminal.progress` shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional

CALLBACK = "callback"
"""The `stopped_by` of a training that a callback stopped."""

Progress = Callable[[str, int, Optional[int]], None]
"""Called with a phase (`compile`, `tune`, `run`, `convert`, `measure`), images done, and total or
None; `tune` counts what is measured."""


@dataclass(frozen=True)
class Status:
    """The state of a training.

    Attributes:
        phase: `preparing`, `training` or `validating`.
        epoch, epochs: the current epoch, from 1, and their number.
        done, total: images of the phase so far, and in total.
        loss, accuracy: means over the epoch so far; accuracy in per cent.
        learning_rate: of the last host call.
        images_per_second: over the last interval.
        data_wait_share: share of it spent waiting for images, 0 to 1.
        seconds_left: estimate for the remaining training.
    """

    phase: str
    epoch: int = 0
    epochs: int = 0
    done: int = 0
    total: int = 0
    loss: Optional[float] = None
    accuracy: Optional[float] = None
    learning_rate: Optional[float] = None
    images_per_second: Optional[float] = None
    data_wait_share: Optional[float] = None
    seconds_left: Optional[float] = None


class StopTraining(Exception):
    """Raised by a callback to end a training after the current host call.

    The training saves a checkpoint, if it writes checkpoints, and returns its result.
    """


class Listener:
    """Receives the progress of a training; the base class ignores it."""

    def status(self, status: Status) -> None:
        """Receive the current status of the training."""

    def line(self, text: str) -> None:
        """Receive a line of results."""

    def note(self, text: str) -> None:
        """Receive a note for the user."""

    def row(self, row: Dict[str, Any]) -> None:
        """Receive a row of metrics: `kind` is `train`, `validation` or `epoch`."""

    def stop(self) -> str:
        """Return why a stop is requested, a signal's name or `callback`; or an empty string."""
        return ""
