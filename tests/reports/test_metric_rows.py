"""Rows of metrics of long trainings."""

from __future__ import annotations

from ipucnn.reports import finished_run
from ipucnn.reports.metric_rows import MetricRows


def test_rows_of_a_training_are_thinned_and_validations_kept():
    rows = MetricRows(50)
    for number in range(1, 2001):
        rows.add({"kind": "train", "update": number})
        assert rows[-1]["update"] == number
        if number % 100 == 0:
            rows.add({"kind": "validation", "update": number})
        assert len(rows) <= 50
    validations = [row["update"] for row in rows if row["kind"] == "validation"]
    trained = [row["update"] for row in rows if row["kind"] == "train"]
    assert validations == [*range(100, 2001, 100)]
    assert len(trained) >= 5
    assert [row["update"] for row in rows] == sorted(validations + trained)


def test_many_validations_leave_room_for_rows_of_training():
    rows = MetricRows(10)
    for number in range(100):
        rows.add({"kind": "validation", "update": number})
    for number in range(20):
        rows.add({"kind": "train", "update": number})
    assert len(rows) == 120


def test_a_report_of_very_many_rows_shows_the_last_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(finished_run, "_MOST_ROWS", 10)
    path, notes = tmp_path / "metrics.jsonl", []
    path.write_text("".join(f'{{"kind": "train", "update": {number}}}\n' for number in range(99)))
    assert finished_run._rows(path, notes)[-1]["update"] == 98
    assert not notes
