"""Parts of predictions become one file, in the order of the images."""

from __future__ import annotations

import json

import pytest

from ipucnn.core.errors import DataError
from ipucnn.inference import predictions
from ipucnn.inference.bulk import prediction_parts as parts

COLUMNS = predictions.columns(1, labelled=True, with_split=True)


def row(index):
    return {"path": f"caf\udce9/{index}.jpg", "label": None if index % 2 else 1, "class_1": index,
            "name_1": "größer", "probability_1": 0.1 + index / 1000,
            "label_name": None if index % 2 else "ähnlich", "split": "train"}


def write(target, index, indices):
    with parts.PartWriter(target, COLUMNS, index) as writer:
        for number in indices:
            writer.write([row(number)], [number])


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_parts_become_what_one_process_writes(tmp_path, suffix):
    target, whole = tmp_path / f"p{suffix}", tmp_path / f"whole{suffix}"
    for index in range(3):
        write(target, index, range(index, 200, 3))
    parts.merge(target, 3)
    with predictions.writer_class(str(whole))(whole, COLUMNS) as writer:
        writer.write([row(index) for index in range(200)])
    if suffix == ".parquet":
        import pyarrow.parquet

        assert pyarrow.parquet.read_table(target) == pyarrow.parquet.read_table(whole)
    else:
        assert target.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {target.name, whole.name}


def test_a_row_that_was_not_finished_and_a_part_that_is_missing(tmp_path):
    target = tmp_path / "p.json"
    write(target, 0, [0, 2, 4])
    torn = tmp_path / ".p.json.part-0"
    torn.write_text(torn.read_text()[:-5])
    write(target, 2, [3])
    parts.merge(target, 3)
    assert [entry["class_1"] for entry in json.loads(target.read_text())] == [0, 2, 3]


def test_without_parts_nothing_is_written(tmp_path):
    parts.merge(tmp_path / "p.csv", 4)
    assert list(tmp_path.iterdir()) == []


def test_parts_stay_when_the_file_cannot_be_written(tmp_path):
    target = tmp_path / "p.csv"
    write(target, 0, [0])
    (tmp_path / ".p.csv.partial").mkdir()
    with pytest.raises(DataError, match="cannot write predictions") as caught:
        parts.merge(target, 1)
    assert ".p.csv.part-*" in caught.value.hint
    assert (tmp_path / ".p.csv.part-0").exists()


def test_parts_of_a_run_that_was_killed_are_removed(tmp_path):
    target = tmp_path / "[odd] p.csv"
    write(target, 7, [0])
    parts.remove(target)
    assert list(tmp_path.iterdir()) == []
