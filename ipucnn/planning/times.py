"""Durations of updates, epochs and a training at a measured rate, and the host's bandwidth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, Optional

from ipucnn.core.documents import parsed_json
from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.files import read_limited
from ipucnn.core.showing import Facts

_LARGEST_FILE = 64 << 20


@dataclass(frozen=True)
class Rate:
    """A measured rate.

    Attributes:
        images_per_second: of all devices of the plan.
        source: the source of the rate, as text.
    """

    images_per_second: float
    source: str


@dataclass(frozen=True)
class Times:
    """Samples, time and bandwidth of a training.

    Attributes:
        update_samples: of a weight update.
        epoch_samples: of an epoch; None if they are not known.
        epochs: of the training; None if unknown.
        image_bytes: that the host sends for one image.
        call_samples: of a host call.
        rate: the measured rate, where there is one.
    """

    update_samples: int
    epoch_samples: Optional[int]
    epochs: Optional[int]
    image_bytes: int
    call_samples: int
    rate: Optional[Rate] = None

    @property
    def updates(self) -> Optional[int]:
        """Weight updates of an epoch: those of whole host calls."""
        if self.epoch_samples is None:
            return None
        return self.epoch_samples // self.call_samples * self.call_samples // self.update_samples

    def seconds(self, samples: Optional[int]) -> Optional[float]:
        """Return the time of some samples at the measured rate."""
        if samples is None or self.rate is None:
            return None
        return samples / self.rate.images_per_second

    @property
    def epoch_seconds(self) -> Optional[float]:
        """The time of an epoch's whole host calls."""
        updates = self.updates
        return None if updates is None else self.seconds(updates * self.update_samples)

    @property
    def training_seconds(self) -> Optional[float]:
        """The time of the training, without validation."""
        epoch = self.epoch_seconds
        return None if epoch is None or self.epochs is None else epoch * self.epochs

    @property
    def bandwidth(self) -> Optional[float]:
        """Bytes of images that the hosts send per second at the measured rate."""
        return self.image_bytes * self.rate.images_per_second if self.rate else None

    def as_dict(self) -> Dict[str, Any]:
        """Return the numbers as plain types."""
        return {
            "samples_per_update": self.update_samples, "samples_per_epoch": self.epoch_samples,
            "updates_per_epoch": self.updates, "epochs": self.epochs,
            "bytes_per_image": self.image_bytes,
            "bytes_per_host_call": self.image_bytes * self.call_samples,
            "images_per_second": self.rate and self.rate.images_per_second,
            "rate_source": self.rate and self.rate.source,
            "update_seconds": self.seconds(self.update_samples),
            "epoch_seconds": self.epoch_seconds, "training_seconds": self.training_seconds,
            "host_bytes_per_second": self.bandwidth}

    def facts(self) -> Facts:
        """Return the numbers as names and values, as text."""
        sent = f"{_amount(self.image_bytes)} for an image, " \
               f"{_amount(self.image_bytes * self.call_samples)} for a host call"
        return [
            ("samples per epoch", self.epoch_samples),
            ("updates per epoch", self.updates),
            ("images from the host", sent if self.image_bytes else None),
            ("rate", self.rate and f"{self.rate.images_per_second:,.0f} images/s "
                                   f"({self.rate.source})"),
            ("bandwidth from the host", self.bandwidth and f"{_amount(self.bandwidth)}/s"),
            ("time of an update", duration(self.seconds(self.update_samples))),
            ("time of an epoch", duration(self.epoch_seconds)),
            ("time of the training", None if self.training_seconds is None else
             f"{duration(self.training_seconds)} for {self.epochs} epochs, without validation")]


def times_of(plan: ExecutionPlan, epoch_samples: Optional[int], epochs: Optional[int],
             rate: Optional[str]) -> Times:
    """Return the times of a training.

    Args:
        plan: its plan, with the size of its images.
        epoch_samples: of an epoch, where they are known.
        epochs: of the training.
        rate: see `PlanOptions.rate`.

    Raises:
        UsageError: the rate is neither a number nor a result.
    """
    side = plan.preprocessing.input_size
    value = 1 if plan.pixels == "uint8" else 2 if plan.half else 4
    return Times(plan.update_batch, epoch_samples, epochs,
                 0 if plan.synthetic else 3 * side * side * value, plan.combined_batch,
                 measured(rate, plan) if rate else None)


def measured(text: str, plan: ExecutionPlan) -> Rate:
    """Return a rate, or that of a result, times the plan's replicas over the result's.

    Raises:
        UsageError: it is neither a number nor a result with a rate.
    """
    try:
        number = float(text)
    except ValueError:
        return _of_result(text, plan)
    if not 0 < number < float("inf"):
        raise UsageError(f"option '--rate': {text!r} is not a rate",
                         "give images per second, or the file of a result")
    return Rate(number, "as given, of all devices")


def _of_result(path: str, plan: ExecutionPlan) -> Rate:
    try:
        result = parsed_json(read_limited(path, _LARGEST_FILE))
    except OSError as error:
        raise UsageError(f"option '--rate': {path!r} is neither a number nor a file: "
                         f"{error.strerror or error}",
                         "give images per second, or the file that '--result' wrote") from None
    except ValueError:
        result = None
    found = result if isinstance(result, dict) else {}
    shape, compute = found.get("plan"), found.get("compute")
    value = found.get("images_per_second")
    if isinstance(found.get("throughput"), dict):
        value = found["throughput"].get("mean")
    if isinstance(compute, dict):  # of data bench: the model alone
        value = compute.get("images_per_second")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise UsageError(f"option '--rate': {path!r} is not a result with a rate",
                         "give images per second, or what '--result' of 'ipucnn train', 'run' or "
                         "'data bench' wrote")
    replicas = shape.get("replicas") if isinstance(shape, dict) else None
    replicas = replicas if isinstance(replicas, int) and replicas > 0 else 1
    return Rate(value * plan.replicas / replicas,
                f"{found.get('model') or 'measured'}, {value:,.1f} images/s of {replicas} "
                f"replica{'s' if replicas > 1 else ''}")


def duration(seconds: Optional[float]) -> Optional[str]:
    """Return a duration as text."""
    if seconds is None:
        return None
    if seconds < 600:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} days {hours % 24} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _amount(size: float) -> str:
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if size >= 10 ** power:
            return f"{size / 10 ** power:,.1f} {unit}"
    return f"{size:,.0f} B"
