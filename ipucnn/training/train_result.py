"""The result of a training."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Dict, List, Optional, Tuple

from ipucnn.core.showing import Blocks, Facts, Shown, Table


def milliseconds(latency: Optional[Tuple[float, float, float]]) -> Optional[Dict[str, float]]:
    """Convert (min, max, mean) seconds of a device call to milliseconds by name."""
    if latency is None:
        return None
    return {name: 1000 * value for name, value in zip(("min", "max", "mean"), latency)}


@dataclass(repr=False)
class TrainResult(Shown):
    """The result of `ipucnn train` and `ipucnn restore`.

    Attributes:
        model, dataset, backend, device: canonical names; the device in words.
        options: the resolved options; `--config` with them repeats the training.
        environment: versions and machine.
        plan: the batch algebra.
        session: the backend's details of its session.
        card: the model card: classes, preprocessing and outputs.
        compile_seconds: seconds spent on compiling the session.
        epochs: completed epochs, including those before a restore.
        updates: weight updates, likewise.
        images: images trained on by this process.
        seconds: time of this process's training.
        images_per_second: throughput of training with data: including the time spent waiting for
            images, excluding validation.
        compute_images_per_second: throughput of the host calls, without waiting for images.
        data_wait_share: share of that time spent waiting for images, 0 to 1.
        device_latency_ms: shortest, longest and mean host call, measured by the device, from
            the request for its first input to its last output written; None without counters.
        loss, accuracy: of the last epoch.
        validations: figures of every validation.
        best: the best validation: metric, value, epoch, weights and file.
        checkpoint: the last checkpoint.
        averaged: the averaged checkpoint.
        log_dir: folder of metrics and options.
        restored: the checkpoint from which it resumed.
        skipped: bad images, and skipped weight updates.
        stopped_by: a signal such as `SIGINT`, `callback` or `early stopping` when it ended early.
        notes: notes for the user.
        history: the rows of metrics that callbacks receive, of this process; not in `as_dict`. Of
            more than 100,000, some rows of the training are left out.
    """

    model: str
    dataset: str
    backend: str
    device: str
    options: Dict[str, Any]
    environment: Dict[str, Any]
    plan: Dict[str, Any]
    session: Dict[str, Any] = field(default_factory=dict)
    card: Dict[str, Any] = field(default_factory=dict)
    compile_seconds: float = 0.0
    epochs: int = 0
    updates: int = 0
    images: int = 0
    seconds: float = 0.0
    images_per_second: Optional[float] = None
    compute_images_per_second: Optional[float] = None
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
    history: List[Dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> Dict[str, Any]:
        """Return the result as plain types, for JSON."""
        kept = asdict(replace(self, history=[]))
        del kept["history"]
        return {"format": "ipucnn.train/1", **kept}

    def facts(self) -> Facts:
        """Return the result as names and values, as text."""
        plan, best, latency = self.plan, self.best, self.device_latency_ms
        return [
            ("model", self.model),
            ("backend", f"{self.backend} on {self.device}"),
            ("data", self.dataset),
            ("precision", plan["precision"] + (f" ({plan['half']})" if plan["half"] else "")),
            ("batch", f"{plan['combined_batch']} per host call, {plan['update_batch']} per update"),
            ("epochs", str(self.epochs)),
            ("updates", self.updates),
            ("throughput", self.images_per_second and
             f"{self.images_per_second:.1f} images/s with data"),
            ("device only", self.compute_images_per_second and
             f"{self.compute_images_per_second:.1f} images/s  (waiting for data "
             f"{100 * self.data_wait_share:.0f} % of the time)"),
            ("latency", latency and f"mean {latency['mean']:.2f} ms, min {latency['min']:.2f} ms, "
                                    f"max {latency['max']:.2f} ms per host call, device time"),
            ("training", (self.loss is not None and f"loss {self.loss:.4f}" + (
                f", accuracy {self.accuracy:.2f} %" if self.accuracy is not None else "")) or None),
            ("best", best and f"{best['metric']} {best['value']:.4f} at epoch {best['epoch']} "
                              f"({best['weights']} weights)"),
            ("skipped", ", ".join(f"{count} {what}" for what, count in self.skipped.items()
                                  if count)),
            ("checkpoint", self.checkpoint), ("averaged", self.averaged),
            ("metrics", self.log_dir), ("stopped by", self.stopped_by)]

    def blocks(self) -> Blocks:
        """Return the facts and the validations; see `Shown`."""
        return [self.facts(), Table(
            ("epoch", "weights", "images", "loss", "top-1 %", "top-5 %"),
            [(str(row["epoch"]), row["weights"], str(row["images"]), f"{row['loss']:.4f}",
              f"{row['top1']:.2f}", f"{row['top5']:.2f}") for row in self.validations],
            "validations")]

    def records(self) -> List[Dict[str, Any]]:
        """Return the rows of metrics: of training, of epochs and of validations."""
        return [dict(row) for row in self.history]
