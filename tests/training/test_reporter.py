"""What the reporter of a training keeps."""

from __future__ import annotations

from types import SimpleNamespace

from ipucnn.core.execution.instances import ALONE
from ipucnn.core.progress import Listener
from ipucnn.training.checkpoints.checkpoint import Position
from ipucnn.training.metrics.figures import Figures, Pace
from ipucnn.training.records import reporter
from ipucnn.training.records.run_files import Records


def test_a_long_training_keeps_a_limited_number_of_rows(monkeypatch):
    monkeypatch.setattr(reporter, "MOST_ROWS", 10)
    named = SimpleNamespace(name="x")
    prepared = SimpleNamespace(
        calls=100, instances=ALONE, data=named, plan=SimpleNamespace(replicas=1),
        built=SimpleNamespace(spec=named, card=SimpleNamespace(classes=2)),
        chosen=SimpleNamespace(spec=named, probe=SimpleNamespace(device="cpu")),
        options=SimpleNamespace(dataset=SimpleNamespace(dataloader_worker=1),
                                results=SimpleNamespace(disable_metrics=False)))
    figures = Figures()
    shown = reporter.Reporter(prepared, Listener(), Records(), figures, Pace(100, 0))
    for call in range(1, 101):
        shown.row(Position(0, call, update=call), 0.1, 1.0)
        assert len(shown.history) <= 10
        assert shown.history[-1]["update"] == call
    assert figures.rows == 100
