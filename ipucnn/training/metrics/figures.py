"""Running metrics of a training: sums saved with a checkpoint, and throughput."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Deque, Dict, List, Mapping, Optional, Tuple

from ipucnn.core.execution.accuracy import per_cent
from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.execution.training_session import StepResult
from ipucnn.models.card import ModelCard
from ipucnn.training.metrics.validation import Validation


@dataclass
class Standing:
    """The best validation so far.

    Attributes:
        metric, value: its metric and value; an empty metric before the first validation.
        epoch, weights: its epoch, and its weights, `raw` or `ema`.
        waited: number of validations since its value was reached.
        loss: its loss, to compare equal values; None in checkpoints of earlier versions.
        file: name of the checkpoint with these weights; empty without one.
    """

    metric: str = ""
    value: float = 0.0
    epoch: int = 0
    weights: str = ""
    waited: int = 0
    file: str = ""
    loss: Optional[float] = None

    def offer(self, metric: str, validation: Validation) -> bool:
        """Record a validation if it is the best so far; return whether it is.

        Of equal values, which are common with few images, the one with the smaller loss is better.
        """
        value = float(getattr(validation, metric))
        same = self.metric == metric  # a restore may have replaced it
        if same and value == self.value:
            if self.loss is None or not validation.loss < self.loss:
                return False
        elif same and not (value < self.value if metric == "loss" else value > self.value):
            return False
        self.metric, self.value, self.loss = metric, value, validation.loss
        self.epoch, self.weights = validation.epoch, validation.weights
        return True

    def as_plain(self) -> Dict[str, Any]:
        """Return the best as plain types; empty before the first validation."""
        return {"metric": self.metric, "value": self.value, "epoch": self.epoch,
                "weights": self.weights} if self.metric else {}

    def on(self, card: ModelCard, dataset: str, epoch: Optional[int]) -> ModelCard:
        """Return the card of the weights of an epoch, with their validation if it was the best."""
        best = {f"best {name}": value for name, value in self.as_plain().items()
                if self.epoch == epoch}
        return replace(card, metrics=best, provenance={**card.provenance, "dataset": dataset})


_SUMS = ("loss_sum", "samples", "correct", "row_loss_sum", "row_samples", "row_correct")


@dataclass
class Figures:
    """Sums over the epoch and over the rows of the metrics files; saved with a checkpoint.

    The sums are of this instance. They are reduced over all instances for a row and at an epoch's
    end, not at every call; a checkpoint stores them separately, so that a restored training
    computes the same totals.

    Attributes:
        loss_sum, samples, correct: over the epoch so far; at its end, of all instances.
        row_loss_sum, row_samples, row_correct: since the last row.
        rows: rows written.
        skipped_updates: updates skipped because their loss was not finite.
        bad: indices of samples that could not be read.
        validated: the last epoch whose validation is counted in `rows` and `standing`.
        standing: the best validation.
    """

    loss_sum: float = 0.0
    samples: int = 0
    correct: int = 0
    row_loss_sum: float = 0.0
    row_samples: int = 0
    row_correct: int = 0
    rows: int = 0
    skipped_updates: int = 0
    bad: List[int] = field(default_factory=list)
    validated: int = 0
    standing: Standing = field(default_factory=Standing)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any], instances: Instances = ALONE) -> Figures:
        """Restore the figures of this instance from the result of `as_plain`.

        If the number of instances differs, the first gets all sums.
        """
        known = dict(values)
        sums = known.pop("instances", [[known.get(name, 0) for name in _SUMS]])
        if len(sums) == instances.count:
            own = sums[instances.index]
        else:
            own = [sum(column) if not instances.index else 0 for column in zip(*sums)]
        standing = Standing(**known.pop("standing", {}))
        # older files lack `validated`; they contain the best epoch only after its validation
        validated = max(known.pop("validated", 0), standing.epoch)
        return cls(**{**known, **dict(zip(_SUMS, own)), "validated": validated,
                      "standing": standing})

    def as_plain(self, instances: Instances = ALONE) -> Dict[str, Any]:
        """Return the figures as plain types, with the sums of every instance; collective."""
        plain = asdict(self)
        if instances.count > 1:
            plain["instances"] = instances.gather([plain[name] for name in _SUMS])
        return plain

    def start_epoch(self) -> None:
        """Reset the sums for an epoch."""
        self.loss_sum, self.samples, self.correct = 0.0, 0, 0

    def add(self, result: StepResult) -> None:
        """Add a host call."""
        self.loss_sum += result.loss * result.samples
        self.row_loss_sum += result.loss * result.samples
        self.samples += result.samples
        self.row_samples += result.samples
        self.correct += result.correct
        self.row_correct += result.correct
        self.skipped_updates += result.skipped

    def end_epoch(self, instances: Instances) -> None:
        """Reduce the sums of the epoch over all instances."""
        loss, samples, correct = instances.totals([self.loss_sum, self.samples, self.correct])
        self.loss_sum, self.samples, self.correct = loss, int(samples), int(correct)

    def loss(self) -> Optional[float]:
        """Return the mean loss of the epoch so far; None without an update."""
        return self.loss_sum / self.samples if self.samples else None

    def accuracy(self) -> Optional[float]:
        """Return the accuracy of the epoch so far, in per cent; None without an update."""
        return per_cent(self.correct, self.samples) if self.samples else None

    def window(self, instances: Instances = ALONE) -> Dict[str, Optional[float]]:
        """Return loss and accuracy of all instances since the last row, and reset the sums.

        Both are None if all updates since were skipped.
        """
        loss, samples, correct = instances.totals(
            [self.row_loss_sum, self.row_samples, self.row_correct])
        self.row_loss_sum, self.row_samples, self.row_correct = 0.0, 0, 0
        if not samples:
            return {"loss": None, "accuracy": None}
        return {"loss": loss / samples, "accuracy": per_cent(int(correct), int(samples))}


class Pace:
    """Throughput over the last host calls, and over this process's whole training.

    Args:
        total: host calls of the training.
        done: host calls done before.
    """

    WINDOW = 50
    """Number of host calls over which the displayed rate is measured."""

    def __init__(self, total: int, done: int) -> None:
        self._left = total - done
        self._recent: Deque[Tuple[int, float, float]] = deque(maxlen=self.WINDOW)
        self.images = 0
        self.seconds = self.waited = 0.0

    def add(self, images: int, seconds: float, waited: float) -> None:
        """Add a host call."""
        self._left -= 1
        self._recent.append((images, seconds, waited))
        self.images += images
        self.seconds += seconds
        self.waited += waited

    @property
    def images_per_second(self) -> Optional[float]:
        """Return the rate over the last host calls."""
        seconds = sum(call[1] for call in self._recent)
        return sum(call[0] for call in self._recent) / seconds if seconds else None

    @property
    def data_wait_share(self) -> float:
        """Return the share of the last host calls spent waiting for images."""
        seconds = sum(call[1] for call in self._recent)
        return sum(call[2] for call in self._recent) / seconds if seconds else 0.0

    @property
    def seconds_left(self) -> Optional[float]:
        """Return an estimate for the remaining training, excluding validation."""
        if not self._recent:
            return None
        return self._left * sum(call[1] for call in self._recent) / len(self._recent)

    @property
    def average(self) -> Optional[float]:
        """Return the rate over this process's whole training."""
        return self.images / self.seconds if self.seconds else None

    @property
    def compute_average(self) -> Optional[float]:
        """Return the rate of the host calls alone, without waiting for images."""
        seconds = self.seconds - self.waited
        return self.images / seconds if seconds > 0 else None

    @property
    def average_wait(self) -> float:
        """Return the share of the whole training spent waiting for images."""
        return self.waited / self.seconds if self.seconds else 0.0
