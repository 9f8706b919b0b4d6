"""What a training tells while it runs, and what it returns."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional, Tuple


@dataclass(frozen=True)
class Status:
    """Where a training is.

    Attributes:
        phase: `preparing`, `training` or `validating`.
        epoch, epochs: the epoch under way, from 1, and all.
        done, total: images of the phase so far, and in all.
        loss, accuracy: means over the epoch so far; accuracy in per cent.
        learning_rate: of the last host call.
        images_per_second: over the last interval.
        data_wait_share: part of it spent waiting for images, 0 to 1.
        seconds_left: estimate for the rest of the training.
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


class Listener:
    """Is told how a training goes; this one keeps silent."""

    def status(self, status: Status) -> None:
        """Take notice of where it is."""

    def line(self, text: str) -> None:
        """Take a line of results."""

    def note(self, text: str) -> None:
        """Take something that the user should know."""

    def stop(self) -> str:
        """Return the name of the signal that asks the training to end, or an empty string."""
        return ""


def milliseconds(latency: Optional[Tuple[float, float, float]]) -> Optional[Dict[str, float]]:
    """Return (min, max, mean) seconds of a device call by name, in milliseconds."""
    if latency is None:
        return None
    return {name: 1000 * value for name, value in zip(("min", "max", "mean"), latency)}


@dataclass
class TrainResult:
    """The result of `ipucnn train` and `ipucnn restore`.

    Attributes:
        model, dataset, backend, device: canonical names; the device in words.
        options: the resolved options; given to `--config` they repeat the training.
        environment: versions and machine.
        plan: the batch algebra.
        session: what the backend says of its session.
        compile_seconds: what making it ready took.
        epochs: whole epochs trained, those before a restore included.
        updates: weight updates, likewise.
        images: images trained on by this process.
        seconds: time of this process's training.
        images_per_second: of training, validation left out.
        data_wait_share: part of that time spent waiting for images, 0 to 1.
        device_latency_ms: shortest, longest and mean host call by the device's own counters, from
            its first input asked for to its last output written; None where there are none.
        loss, accuracy: of the last epoch.
        validations: figures of every validation.
        best: which validation was best: metric, value, epoch, weights and file.
        checkpoint: the last checkpoint.
        averaged: the averaged checkpoint.
        log_dir: folder of metrics and options.
        restored: the checkpoint it continued from.
        skipped: bad images, and weight updates that were left out.
        stopped_by: `SIGINT`, `SIGTERM` or `early stopping` when it ended early.
        notes: what the user should know.
    """

    model: str
    dataset: str
    backend: str
    device: str
    options: Dict[str, Any]
    environment: Dict[str, Any]
    plan: Dict[str, Any]
    session: Dict[str, Any] = field(default_factory=dict)
    compile_seconds: float = 0.0
    epochs: int = 0
    updates: int = 0
    images: int = 0
    seconds: float = 0.0
    images_per_second: Optional[float] = None
    data_wait_share: float = 0.0
    device_latency_ms: Optional[Dict[str, float]] = None
    loss: Optional[float] = None
    accuracy: Optional[float] = None
    validations: List[Dict[str, Any]] = field(default_factory=list)
    best: Optional[Dict[str, Any]] = None
    checkpoint: str = ""
    averaged: str = ""
    log_dir: str = ""
    restored: str = ""
    skipped: Dict[str, int] = field(default_factory=lambda: {"images": 0, "updates": 0})
    stopped_by: Optional[str] = None
    notes: List[str] = field(default_factory=list)

    def as_dict(self) -> Dict[str, Any]:
        """Return the result as plain types, for JSON."""
        return {"format": "ipucnn.train/1", **asdict(self)}
