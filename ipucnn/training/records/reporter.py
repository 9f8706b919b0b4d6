"""Reports the status and the metrics of a training while it runs."""

from __future__ import annotations

from typing import Any, Dict, Optional

from ipucnn.core.progress import Listener, Status
from ipucnn.data.waiting import hint
from ipucnn.reports.metric_rows import MetricRows
from ipucnn.training.checkpoints.checkpoint import Position
from ipucnn.training.metrics.figures import Figures, Pace
from ipucnn.training.metrics.validation import Validation
from ipucnn.training.records.run_files import Records
from ipucnn.training.setup.preparation import Prepared

MOST_ROWS = 100_000
"""Maximum number of rows that stay in memory, apart from validations and epochs."""


class Reporter:
    """Reports a training to its listener and to its records.

    Args:
        prepared: the training.
        listener: receives status, rows and lines of results.
        records: receive status and rows.
        figures: the metrics.
        pace: the throughput.

    Attributes:
        history: the rows so far; see `MOST_ROWS`.
        waiting: the last note on waiting for images; None if it did not wait long.
    """

    def __init__(self, prepared: Prepared, listener: Listener, records: Records, figures: Figures,
                 pace: Pace) -> None:
        self._options, self._calls = prepared.options, prepared.calls
        self._instances, self._classes = prepared.instances, prepared.built.card.classes
        self._listener, self._records = listener, records
        self._figures, self._pace = figures, pace
        self._facts = {"backend": prepared.chosen.spec.name, "model": prepared.built.spec.name,
                       "device": prepared.chosen.probe.device, "dataset": prepared.data.name,
                       "instances": self._instances.count, "replicas": prepared.plan.replicas,
                       "workers": self._options.dataset.dataloader_worker}
        self.history = MetricRows(MOST_ROWS)
        self.waiting: Optional[str] = None

    def accuracy(self) -> Optional[float]:
        """Return the accuracy over the epoch so far in per cent; None without metrics."""
        return None if self._options.results.disable_metrics else self._figures.accuracy()

    def status(self, position: Position, lr: float) -> None:
        """Report the status after a host call."""
        status = Status(
            "training", position.epoch + 1, self._options.optimisation.epochs, position.call,
            self._calls, self._figures.loss(), self.accuracy(), lr,
            self._pace.images_per_second, self._pace.data_wait_share, self._pace.seconds_left)
        self._listener.status(status)
        self._records.progress(status, self._facts)

    def rows_until(self, call: int) -> int:
        """Return the number of rows in the first host calls of an epoch."""
        results = self._options.results
        if results.steps_per_log:
            return call // results.steps_per_log
        return call * results.logs_per_epoch // self._calls

    def row_due(self, call: int) -> bool:
        """Return whether a row is reported after this number of host calls of an epoch."""
        return self.rows_until(call) > self.rows_until(call - 1)

    def row(self, position: Position, lr: float, scaling: float) -> None:
        """Report the metrics since the last row."""
        window = self._figures.window(self._instances)
        if self._options.results.disable_metrics:
            window["accuracy"] = None
        self._record({
            "kind": "train", "epoch": position.epoch + position.call / self._calls,
            "update": position.update, **window, "learning_rate": lr, "loss_scaling": scaling,
            "images_per_second": self._pace.images_per_second,
            "data_wait_share": self._pace.data_wait_share})

    def epoch(self, position: Position, images_per_second: float) -> None:
        """Report the metrics of an epoch at its end."""
        accuracy = self.accuracy()
        if accuracy is not None:
            self._listener.line(f"Epoch {position.epoch}: Train accuracy is {accuracy:.2f}%")
        self._listener.line(f"Throughput of the epoch:{images_per_second:.1f} img/sec")
        waiting = hint(self._pace.average_wait, self._pace.seconds,
                       self._options.dataset.dataloader_worker)
        if waiting and not self.waiting:
            self._listener.note(waiting)
        self.waiting = waiting
        self._show({
            "kind": "epoch", "epoch": position.epoch, "update": position.update,
            "loss": self._figures.loss(), "accuracy": accuracy,
            "images_per_second": images_per_second})

    def validation(self, validation: Validation, update: int) -> None:
        """Report a validation after a number of weight updates."""
        self._record({"kind": "validation", "update": update, **validation.figures(),
                      "classes": self._classes})
        self._records.confusion(validation, update)

    def _record(self, row: Dict[str, Any]) -> None:
        self._figures.rows += 1
        self._records.row(row)
        self._show(row)

    def _show(self, row: Dict[str, Any]) -> None:
        self.history.add(row)
        self._listener.row(row)
