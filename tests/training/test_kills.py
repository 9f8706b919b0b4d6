"""A training continues after its process was killed as if it had not been interrupted."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import pytest
from PIL import Image

import ipucnn
from ipucnn.core.errors import IpucnnError

TRAINING = {"model": "resnet8-cifar", "data": "image_folder", "data_dir": "pictures",
            "input_size": 16, "precision": "full", "dataloader_worker": 1, "batch_size": 4,
            "iterations": 1, "lr": 0.01, "backend": "torch", "epoch": 5,
            "checkpoint_save_freq": 3, "keep_best": True, "keep_last": 1, "best_metric": "loss",
            "early_stopping": 2, "checkpoint_path": "c"}


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Pictures of two classes, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for split, count in (("train", 2), ("val", 1)):
        for name in "ab":
            for number in range(count):
                file = tmp_path / "pictures" / split / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (16, 16), (len(split), 40 * number, 200)).save(file)
    return tmp_path


REPORTED = ("training.json", "validation.json", "report.html", "status.json")
"""Files of the report and of `ipucnn watch`."""


def left(folder):
    """Return what a training left, but for what the clock wrote, and that nothing else is there."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("images_per_second", None)
        row.pop("data_wait_share", None)
    files = {path.name: path.read_bytes() for path in folder.iterdir()
             if not path.name.startswith("metrics.") and path.name not in REPORTED}
    # thumbnails are made at the end
    files["validation"] = json.loads((folder / "validation.json").read_text())["epoch"]
    return rows, files


@pytest.mark.parametrize("losses", [[3.0, 2.0, 2.5, 1.5, 1.6], [3.0, 2.0, 2.5, 2.6]],
                         ids=["to the end", "stopped early"])
def test_a_kill_at_any_renaming_changes_nothing(pictures, monkeypatch, losses):
    validated(monkeypatch, losses)
    copies, replace = [], os.replace

    def replacing(source, target):
        replace(source, target)
        # its first row comes later; nothing is restored from what a report shows
        if os.path.exists("c/options.yaml") and os.path.basename(target) not in REPORTED:
            copies.append(shutil.copytree("c", f"copy{len(copies)}"))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replacing)
        ipucnn.train(**TRAINING)
    expected = left(pictures / "c")
    assert sorted(expected[1]) == ["best.json", "classes.json", "options.yaml",
                                   *(f"resnet8-cifar_image_folder_{epoch}.pt"
                                     for epoch in ((4, 5) if len(losses) == 5 else (2, 4))),
                                   "validation"]
    restored = 0
    for copy in copies:
        shutil.rmtree("c")
        shutil.move(copy, "c")
        if not list((pictures / "c").glob("*.pt")):
            continue
        ipucnn.restore(checkpoint_path="c")
        assert left(pictures / "c") == expected, copy
        restored += 1
    assert restored >= 6


def validated(monkeypatch, losses):
    """Set the loss that the validation of each epoch computes."""
    from ipucnn.training.metrics.validation import Evaluator

    measured = Evaluator.__call__

    def measure(self, weights, epoch, *rest):
        validation = measured(self, weights, epoch, *rest)
        return dataclasses.replace(validation, loss=losses[epoch - 1])

    monkeypatch.setattr(Evaluator, "__call__", measure)


def test_a_signal_at_an_unscheduled_epoch_leaves_no_trace(pictures, monkeypatch):
    validated(monkeypatch, [3.0, 3.5, 2.0, 2.5, 2.6])
    ipucnn.train(**TRAINING)
    expected = left(pictures / "c")
    for epoch in (1, 2):
        shutil.rmtree("c")
        ipucnn.train(**TRAINING, callbacks=lambda row, last=epoch: row["kind"] == "epoch"
                     and row["epoch"] == last)
        (file,) = (pictures / "c").glob(f"*_{epoch + 1}.step{epoch}.pt")
        assert file.is_file()
        ipucnn.restore(checkpoint_path="c")
        assert left(pictures / "c") == expected


def test_a_restored_older_checkpoint_takes_the_record_of_its_time(pictures, monkeypatch):
    validated(monkeypatch, [3.0, 2.0, 1.0, 5.0, 5.0])
    options = {**TRAINING, "checkpoint_save_freq": 1, "keep_last": 0, "epoch": 3}
    ipucnn.train(**options)
    name = "resnet8-cifar_image_folder_{}.pt"
    assert json.loads((pictures / "c/best.json").read_text())["file"] == name.format(3)
    validated(monkeypatch, [3.0, 2.0, 2.5, 5.0])
    ipucnn.restore(checkpoint_path=f"c/{name.format(2)}")
    best = json.loads((pictures / "c/best.json").read_text())
    assert (best["file"], best["value"]) == (name.format(2), 2.0)


def test_a_best_that_cannot_be_recorded_fails_the_training_in_the_end(pictures):
    with pytest.raises(IpucnnError, match=r"cannot write .*best.json.* folder") as caught:
        ipucnn.train(**{**TRAINING, "epoch": 1}, callbacks=lambda row: (
            pictures / "c/best.json").mkdir(exist_ok=True))
    assert caught.value.exit_code == 1
    assert caught.value.partial.epochs == 1
    assert list((pictures / "c").glob("*_1.pt"))
