"""Shards on the command line: run, train, resume and validate, under ImageNet's name too."""

import csv
import json
import os

import pytest
from shard_folders import jpeg, sample, write, write_old

MODEL = ("--model", "resnet8-cifar", "--backend", "torch", "--device", "cpu", "--precision", "full",
         "--progress", "off")
RUN = ("run", *MODEL, "--weights", "random", "--batch-size", "4", "--json")
TRAIN = ("train", *MODEL, "--batch-size", "4", "--epoch", "1", "--json")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("make", [write, write_old])
def test_imagenet_as_shards(cli, tmp_path, make):
    folder = make(tmp_path / "shards")
    code, out, err = cli(*RUN, "--data", "imagenet", "--imagenet-data-path", folder,
                         "--num-classes", "3")
    assert code == 0, err
    result = json.loads(out)
    assert result["accuracy"]["images"] == 6
    assert f"'{folder}' is read as dataset 'webdataset'" in result["notes"]


def test_train_and_validate(cli, tmp_path):
    folder = write(tmp_path / "shards", train=16)
    code, out, err = cli(*TRAIN, "--data", "imagenet", "--data-dir", folder, "--checkpoint-path",
                         tmp_path / "saved", "--use-bbox-info")
    assert code == 0, err
    result = json.loads(out)
    assert any("is read as dataset 'webdataset'" in note for note in result["notes"])
    (validation,) = result["validations"]
    code, out, err = cli("validate", "--checkpoint-path", tmp_path / "saved", "--progress", "off",
                         "--json")
    assert code == 0, err
    (again,) = json.loads(out)["validations"]
    assert (again["images"], again["top1"]) == (6, validation["top1"])


def test_without_labels(cli, tmp_path):
    folder = write(tmp_path / "shards", classes=(),
                   make=lambda number, kind: sample(number, cls=None))
    code, out, err = cli(*RUN, "--data", "webdataset", "--data-dir", folder, "--num-classes", "7",
                         "--predictions", tmp_path / "p.csv")
    assert code == 0, err
    assert json.loads(out)["accuracy"] is None
    with open(str(tmp_path / "p.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert "label" not in rows[0]
    assert [row["image_id"] for row in rows] == [str(1000 + number) for number in range(6)]
    code, _, err = cli(*TRAIN, "--data", "webdataset", "--data-dir", folder)
    assert code == 2
    assert "'webdataset' has no labels to train on" in err


def test_bad_samples_are_counted_or_end_the_run(cli, tmp_path):
    folder = write(tmp_path / "shards", make=lambda number, kind: sample(
        number, **({"jpg": jpeg(4)[:200]} if number == 4 else {})))
    argv = (*RUN, "--data", "webdataset", "--data-dir", folder, "--num-classes", "3")
    code, _, err = cli(*argv)
    assert code == 1
    assert "validation-000001.tar/4.jpg" in err
    code, out, err = cli(*argv, "--skip-bad-samples")
    assert code == 0, err
    result = json.loads(out)
    assert (result["images"], result["skipped"]["count"]) == (5, 1)


def test_a_shard_that_is_missing(cli, tmp_path):
    folder = write(tmp_path / "shards")
    os.unlink(str(folder / "validation-000001.tar"))
    code, _, err = cli(*RUN, "--data", "imagenet", "--data-dir", folder, "--num-classes", "3")
    assert code == 1
    assert "validation-000001.tar' is missing" in err


def test_a_url_for_a_dataset_of_folders(cli):
    code, _, err = cli(*RUN, "--data", "image_folder", "--data-dir", "http://localhost/x")
    assert code == 2
    assert "'image_folder' is not read from a URL" in err
