"""Prediction files: three formats, whole under their name, kept when the run breaks."""

from __future__ import annotations

import csv
import json
import os
import resource

import pyarrow.parquet
import pytest
import torch

from ipucnn.core.errors import DataError, UnavailableError, UsageError
from ipucnn.core.execution.instances import ALONE
from ipucnn.inference import predictions
from ipucnn.inference.shared_predictions import SharedWriter

NAMES = ["cat", "dog, big", 'a "fish"']


def _rows():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    return predictions.rows(["a/é,1.jpg", "b.jpg"], [0, None], probabilities, NAMES, 2)


def _read(path):
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    if path.suffix == ".json":
        return json.loads(path.read_text())
    return pyarrow.parquet.read_table(path).to_pylist()


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_rows_come_back_as_they_were_written(tmp_path, suffix):
    path = tmp_path / "new folder" / f"p{suffix}"
    with predictions.writer_class(str(path))(path, predictions.columns(2, True)) as writer:
        writer.write(_rows()[:1])
        assert not path.exists()
        writer.write(_rows()[1:])
    first, second = _read(path)
    assert first["path"] == "a/é,1.jpg"
    assert int(first["label"]) == 0
    assert (int(first["class_1"]), first["name_1"]) == (0, "cat")
    assert float(first["probability_1"]) == pytest.approx(0.7)
    assert (second["name_1"], second["name_2"]) == ('a "fish"', "dog, big")
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_labels_are_named_and_the_split_is_stated(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    columns = predictions.columns(2, True, with_split=True)
    with predictions.writer_class(str(path))(path, columns) as writer:
        writer.write(predictions.described(_rows(), ["kitten", "puppy"], "validation"))
    first, second = _read(path)
    assert list(first) == columns == [
        "path", "label", "class_1", "name_1", "probability_1", "class_2", "name_2",
        "probability_2", "label_name", "split"]
    assert (first["label_name"], first["split"]) == ("kitten", "validation")
    assert not second["label_name"]
    assert second["split"] == "validation"


def test_images_without_labels_or_splits_have_no_such_columns():
    rows = predictions.rows(["a.jpg"], None, torch.eye(1, 3), NAMES, 1)
    assert list(predictions.described(rows, (), "")[0]) == predictions.columns(1, False)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_a_run_that_breaks_keeps_its_rows(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"

    def broken_run():
        with predictions.writer_class(str(path))(path, predictions.columns(2, True)) as writer:
            writer.write(_rows())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_run()
    assert len(_read(path)) == 2


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_image_ids_are_a_column_of_whole_numbers(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    row = predictions.rows(["a.jpg", "b.jpg"], None, torch.eye(2, 3), NAMES, 1,
                           [2**62 + 1, None])
    columns = predictions.columns(1, False, with_ids=True)
    with predictions.writer_class(str(path))(path, columns) as writer:
        writer.write(row)
    first, second = _read(path)
    assert list(first) == ["path", "image_id", "class_1", "name_1", "probability_1"]
    assert int(first["image_id"]) == 2**62 + 1
    assert second["image_id"] in (None, "")


def test_unusual_file_names_are_written(tmp_path):
    name = b"bad\xff.jpg".decode("utf-8", "surrogateescape")
    row = predictions.rows([name], None, torch.tensor([[1.0, 0.0, 0.0]]), NAMES, 1)
    for suffix in (".csv", ".json", ".parquet"):
        path = tmp_path / f"p{suffix}"
        with predictions.writer_class(str(path))(path, predictions.columns(1, False)) as writer:
            writer.write(row)
        assert path.stat().st_size > 10


def test_a_format_that_is_not_known_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no known format"):
        predictions.writer_class("p.xlsx")
    (tmp_path / "p.csv").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        predictions.writer_class(str(tmp_path / "p.csv"))


def test_parquet_without_pyarrow_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UnavailableError) as caught:
        predictions.writer_class("p.parquet")
    assert "ipucnn[parquet]" in caught.value.hint


def test_a_failed_write_is_an_error_and_leaves_no_partial_file(tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    with pytest.raises(DataError) as caught:
        predictions.writer_class("x.csv")(file / "p.csv", predictions.columns(1, False))
    assert "p.csv" in caught.value.message
    assert "--predictions" in caught.value.hint


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_two_runs_do_not_write_one_file(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    make, columns = predictions.writer_class(str(path)), predictions.columns(2, True)
    with make(path, columns) as writer:
        writer.write(_rows())
        with pytest.raises(UsageError, match="another run is writing predictions file"):
            make(path, columns)
    assert len(_read(path)) == 2
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("limit", [4, 700, 3000])
def test_a_parquet_file_that_cannot_be_finished_has_no_name(tmp_path, limit):
    path = tmp_path / "p.parquet"
    path.write_bytes(b"of before")

    def write():
        writer = predictions.writer_class(str(path))(path, predictions.columns(2, True))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with writer:
                for _ in range(20):
                    writer.write(_rows())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with pytest.raises(DataError, match="cannot write predictions"):
        write()
    assert path.read_bytes() == b"of before" or len(_read(path)) > 0
    assert [p.name for p in tmp_path.iterdir()] == ["p.parquet"]


def test_rows_before_a_full_disk_are_shared(tmp_path):
    path = tmp_path / "p.csv"
    writer = SharedWriter(str(path), predictions.columns(2, True), ALONE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    written = []

    def write():
        for index in range(0, 200, 2):
            writer.write(_rows(), [index, index + 1])  # to a temporary file
            written.extend(_rows())

    try:
        with pytest.raises(DataError, match="cannot write predictions"):
            write()
        assert writer.share(together=False) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    rows = _read(path)
    # of the rows that did not fit, one may be complete
    assert len(written) <= len(rows) <= len(written) + 1
    assert [row["path"] for row in rows[:3]] == ["a/é,1.jpg", "b.jpg", "a/é,1.jpg"]


def test_a_pipe_or_a_device_is_refused(tmp_path):
    os.mkfifo(str(tmp_path / "p.csv"))
    (tmp_path / "p.json").symlink_to("/dev/null")
    for name, kind in (("p.csv", "a FIFO"), ("p.json", "a device")):
        with pytest.raises(UsageError, match=f"is {kind}"):
            predictions.writer_class(str(tmp_path / name))
