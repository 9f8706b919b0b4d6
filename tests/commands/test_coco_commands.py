"""COCO on the command line: partition it, classify it, get the ids with the predictions."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

IDS = (42, 73, 74, 133, 136)
RUN = ("run", "--data", "coco", "--weights", "random", "--input-size", "32", "--batch-size", "2",
       "--progress", "off")


@pytest.fixture(scope="module")
def coco(tmp_path_factory) -> Path:
    """A root in COCO's layout; its annotations have one image of five not."""
    root = tmp_path_factory.mktemp("coco")
    for folder in ("val2014", "annotations"):
        (root / folder).mkdir()
    for number in IDS:
        Image.new("RGB", (48, 40), (number, 9, 9)).save(
            str(root / "val2014" / f"COCO_val2014_{number:012d}.jpg"), "JPEG")
    (root / "annotations/instances_val2014.json").write_text(json.dumps({"images": [
        {"file_name": f"COCO_val2014_{number:012d}.jpg", "id": number + 1000}
        for number in IDS[1:]]}))
    return root


def rows(path):
    if path.suffix == ".parquet":
        return pyarrow.parquet.read_table(str(path)).to_pylist()
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_partition_and_classify_with_ids_in_the_order_of_the_images(cli, coco, tmp_path):
    source, out, target = coco / "val2014", tmp_path / "datasets", tmp_path / "p.csv"
    out.mkdir()
    code, text, err = cli("data", "partition", "--data-dir", source, "--partitions", "2",
                          "--output", out)
    assert (code, text, err) == (0, f"{out}: 2 partitions of 2 or 3 images (5 hard links)\n", "")
    code, _, err = cli(*RUN, "--data-dir", out, "--predictions", target, "--top-k", "1")
    assert code == 0, err
    assert [int(row["image_id"]) for row in rows(target)] == list(IDS)
    assert list(rows(target)[0]) == ["path", "image_id", "class_1", "name_1", "probability_1"]


def test_ids_of_annotations(cli, coco, tmp_path):
    target = tmp_path / "p.parquet"
    code, out, err = cli(*RUN, "--data-dir", coco, "--predictions", target, "--json")
    assert code == 0, err
    assert [row["image_id"] for row in rows(target)] == [None, 1073, 1074, 1133, 1136]
    assert any("1 of 5 images are not in" in note for note in json.loads(out)["notes"])
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"images": [
        {"file_name": f"COCO_val2014_{number:012d}.jpg", "id": -number} for number in IDS]}))
    code, _, err = cli(*RUN, "--data-dir", coco, "--predictions", target, "--annotations", other)
    assert code == 0, err
    assert [row["image_id"] for row in rows(target)] == [-number for number in IDS]


def test_other_predictions_have_no_such_column(cli, coco, tmp_path):
    target = tmp_path / "p.csv"
    assert cli(*RUN, "--data", "real", "--data-dir", coco, "--predictions", target)[0] == 0
    assert "image_id" not in rows(target)[0]


@pytest.mark.parametrize(("argv", "message", "hint"), [
    (("--annotations", "x.json", "--predictions", "p.csv", "--data", "real"),
     "'--annotations' is an option of dataset coco; this run uses real", "--data coco"),
    (("--annotations", "x.json", "--predictions", "p.csv", "--data", "generated"),
     "'--annotations' is an option of dataset coco; this run uses generated", "--data coco"),
    ((), "dataset 'coco' needs a folder", "--data-dir")])
def test_wrong_usage(cli, argv, message, hint):
    code, _, err = cli(*RUN, *argv)
    assert code == 2
    assert message in err
    assert hint in err.partition("hint: ")[2]


def test_annotations_that_are_missing_are_named(cli, coco):
    code, _, err = cli(*RUN, "--data-dir", coco, "--annotations", "x.json",
                       "--predictions", "p.csv")
    assert code == 1
    assert "'x.json'" in err


def test_annotations_without_predictions_are_refused(cli, coco):
    code, _, err = cli(*RUN, "--data-dir", coco, "--annotations", "x.json")
    assert code == 2
    assert "'--annotations' has no effect without '--predictions'" in err


def test_training_on_it_is_refused(cli, coco):
    code, _, err = cli("train", "--data", "coco", "--data-dir", coco, "--weights", "random")
    assert code == 2
    assert "'coco' has no labels to train on" in err


def test_partition_as_json_and_verbose(cli, coco, tmp_path):
    out = tmp_path / "out"
    argv = ("data", "partition", "--data-dir", coco, "--partitions", "2", "--output", out,
            "--json", "--verbose")
    done = subprocess.run([sys.executable, "-m", "ipucnn", *map(str, argv), "--copy"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
                          check=True)
    assert json.loads(done.stdout) == {
        "output": str(out), "images": 5, "made_as": {"copies": 5},
        "notes": [f"left out of {str(coco)!r}: 1 file that is no image: "
                  "annotations/instances_val2014.json"],
        "partitions": [{"path": str(out / "0"), "images": 2},
                       {"path": str(out / "1"), "images": 3}]}
    for number, image in zip((0, 0, 1, 1, 1), IDS):
        place = out / str(number) / "val2014" / f"COCO_val2014_{image:012d}.jpg"
        assert place.is_file()
        assert str(place) in done.stderr
    code, text, err = cli(*argv)
    assert (code, text) == (2, "")
    assert "is not empty" in err


def test_verify(cli, coco):
    code, out, _ = cli("data", "verify", coco)
    assert code == 1
    assert out.count("\n") == 1
    assert "is not in" in out
    assert cli("data", "verify", coco / "val2014")[0] == 0


def big_source(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(b"\xff\xd8" + bytes(20_000))
    return folder


def test_a_full_disk_leaves_nothing(tmp_path):
    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))

    source = big_source(tmp_path / "source", 3)
    done = subprocess.run(
        [sys.executable, "-m", "ipucnn", "data", "partition", "--data-dir", str(source),
         "--partitions", "2", "--output", str(tmp_path / "out"), "--copy"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True,
        preexec_fn=small_disk)
    assert done.returncode == 1
    assert "0.jpg': file too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["source"]


def test_ctrl_c_leaves_nothing(tmp_path):
    source = big_source(tmp_path / "source", 4000)
    process = subprocess.Popen(
        [sys.executable, "-m", "ipucnn", "data", "partition", "--data-dir", str(source),
         "--partitions", "7", "--output", str(tmp_path / "out"), "--copy"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*/out/1")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == ["source"]
    assert len(os.listdir(source)) == 4000
