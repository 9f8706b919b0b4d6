"""The files of metrics, also after a crash and on a full disk, and the logger that has them."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys

import pytest
import yaml

from ipucnn.core.errors import DataError
from ipucnn.core.loggers import RunInfo
from ipucnn.plugins.loggers.files import COLUMNS, FilesLogger, MetricsWriter

ROWS = [{"kind": "train", "epoch": n / 4, "update": n, "loss": 1 / (n + 1)} for n in range(6)]


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def table(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_both_files_have_the_same_rows(tmp_path):
    writer = MetricsWriter(tmp_path)
    for row in ROWS:
        writer.add(row)
    assert lines(tmp_path) == ROWS
    assert list(table(tmp_path)[0]) == list(COLUMNS)
    assert [float(row["loss"]) for row in table(tmp_path)] == [row["loss"] for row in ROWS]
    assert {row["top1"] for row in table(tmp_path)} == {""}


def test_a_resumed_training_continues_where_its_checkpoint_was(tmp_path):
    for row in ROWS:
        MetricsWriter(tmp_path, 9).add(row)
    writer = MetricsWriter(tmp_path, rows=2)
    assert lines(tmp_path) == ROWS[:2]
    assert len(table(tmp_path)) == writer.rows == 2
    writer.add(ROWS[5])
    assert lines(tmp_path) == [*ROWS[:2], ROWS[5]]


def test_in_another_folder_later_rows_are_dropped_by_their_update(tmp_path):
    """The training began elsewhere, so that more rows were recorded than this folder has."""
    found = [*ROWS[2:4], {"kind": "validation", "epoch": 1, "update": 3},
             {"kind": "train", "epoch": 1, "update": 4}]
    writer = MetricsWriter(tmp_path)
    for row in found:
        writer.add(row)
    for validated, kept in ((1, found[:3]), (0, found[:2])):
        run = RunInfo({}, tmp_path, 40, tmp_path / "m_d_1.pt", 3, validated=validated)
        FilesLogger().start(run)
        assert lines(tmp_path) == kept
        assert len(table(tmp_path)) == len(kept)


def test_a_half_written_row_is_dropped(tmp_path):
    writer = MetricsWriter(tmp_path)
    for row in ROWS[:3]:
        writer.add(row)
    file = tmp_path / "metrics.jsonl"
    file.write_text(file.read_text()[:-10])
    assert MetricsWriter(tmp_path, rows=3).rows == 2
    assert lines(tmp_path) == ROWS[:2]
    assert len(table(tmp_path)) == 2


def test_what_a_full_disk_refuses_is_written_later(tmp_path):
    script = """
import json, resource, sys
from pathlib import Path
from ipucnn.plugins.loggers.files import MetricsWriter
rows = json.loads(sys.argv[2])
writer = MetricsWriter(Path(sys.argv[1]))
writer.add(rows[0])
most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, ((Path(sys.argv[1]) / "metrics.jsonl").stat().st_size + 9,
                                           most))
writer.add(rows[1])
print(writer.failed)
writer.add(rows[2])
print((Path(sys.argv[1]) / "metrics.jsonl").read_text() == json.dumps(rows[0]) + "\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
writer.add(rows[3])
print(writer.failed)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), json.dumps(ROWS)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True,
                          universal_newlines=True)
    first, no_half_row, second = done.stdout.splitlines()
    assert str(tmp_path) in first
    assert "File too large" in first
    assert no_half_row == "True"
    assert second == "None"
    assert lines(tmp_path) == ROWS[:4]
    assert [float(row["loss"]) for row in table(tmp_path)] == [row["loss"] for row in ROWS[:4]]


def test_a_folder_that_cannot_be_written_for_a_while_leaves_no_gap(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    writer = MetricsWriter(folder)
    writer.add(ROWS[0])
    folder.rename(tmp_path / "aside")
    folder.write_text("in the way")
    for row in ROWS[1:3]:
        writer.add(row)
        assert f"cannot write metrics in '{folder}'" in writer.failed
    folder.unlink()
    (tmp_path / "aside").rename(folder)
    writer.add(ROWS[3])
    assert writer.failed is None
    assert writer.rows == 4
    assert lines(folder) == ROWS[:4]
    assert [row["update"] for row in table(folder)] == ["0", "1", "2", "3"]


def test_a_deleted_folder_is_created_again(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    writer = MetricsWriter(folder)
    writer.add(ROWS[0])
    shutil.rmtree(str(folder))
    writer.add(ROWS[1])
    assert lines(folder) == ROWS[1:2]
    assert [row["update"] for row in table(folder)] == ["1"]


def test_a_tail_that_is_no_text_is_dropped(tmp_path):
    MetricsWriter(tmp_path).add(ROWS[0])
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"kind": "tr\xff\xfe')
    assert MetricsWriter(tmp_path, rows=2).rows == 1
    assert lines(tmp_path) == ROWS[:1]


# -- the logger --------------------------------------------------------------------------------


def started(folder, rows=0, **options):
    logger = FilesLogger()
    logger.start(RunInfo({"model": "resnet18", "lr": 0.1, **options}, folder, rows))
    return logger


def test_options_are_written_with_the_metrics(tmp_path):
    logger = started(tmp_path, pipeline_splits=["layer2"])
    assert yaml.safe_load((tmp_path / "options.yaml").read_text()) == {
        "model": "resnet18", "lr": 0.1, "pipeline_splits": ["layer2"]}
    assert [logger.row(row) for row in ROWS] == [None] * len(ROWS)
    assert lines(tmp_path) == ROWS
    assert len(table(tmp_path)) == len(ROWS)
    logger.finish("completed", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "metrics.csv", "metrics.jsonl", "options.yaml"]


def test_a_restored_training_keeps_the_rows_of_its_checkpoint(tmp_path):
    first = started(tmp_path)
    for row in ROWS:
        first.row(row)
    again = started(tmp_path, rows=4, lr=0.5)
    assert lines(tmp_path) == ROWS[:4]
    assert yaml.safe_load((tmp_path / "options.yaml").read_text())["lr"] == 0.5
    again.row(ROWS[5])
    assert lines(tmp_path) == [*ROWS[:4], ROWS[5]]


def test_a_row_that_cannot_be_written_is_noted_and_written_with_the_next(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    logger = started(folder)
    folder.rename(tmp_path / "aside")
    folder.write_text("in the way")
    assert logger.row(ROWS[0]) == (f"cannot write metrics in '{folder}': File exists; it is tried "
                                   "again with the next row")
    folder.unlink()
    (tmp_path / "aside").rename(folder)
    assert logger.row(ROWS[1]) is None
    assert lines(folder) == ROWS[:2]


def test_classes_that_cannot_be_written_do_not_end_the_recording(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    logger = started(folder)
    scores = {"kind": "validation", "epoch": 1}

    def note():
        return logger.confusion(scores, [[1, 0], [0, 1]], ["cat", "dog"])

    folder.rename(tmp_path / "aside")
    folder.write_text("in the way")
    assert "classes.json': File exists; it is tried again with the next validation" in note()
    assert logger.row(ROWS[0]) is not None
    assert note() is None  # the same as before
    assert logger.row(ROWS[1]) is None
    folder.unlink()
    (tmp_path / "aside").rename(folder)
    assert logger.row(ROWS[2]) is None
    assert lines(folder) == ROWS[:3]
    assert note() is None
    assert (folder / "classes.json").exists()


def test_a_folder_that_cannot_be_written_is_refused_at_the_start(tmp_path):
    (tmp_path / "log").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write '.*metrics\.jsonl': File exists"):
        started(tmp_path / "log")
