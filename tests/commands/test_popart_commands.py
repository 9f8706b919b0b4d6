"""The commands in the page on the PopART backend, run on the double."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from ipucnn.__main__ import invoke
from ipucnn.core.options.composition import common_options
from ipucnn.core.options.declaration import declared
from ipucnn.core.registry.registry import use
from ipucnn.plugins.backends.popart import ipucnn_backends
from ipucnn.plugins.backends.popart.options import PopArtOptions
from ipucnn.training.options.train_options import TrainOptions

PAGE = Path(__file__).parents[2] / "docs" / "backends" / "popart.md"
COMMANDS = [re.findall(r"`ipucnn ([^`]+)`", line)[0] for line in PAGE.read_text().splitlines()
            if line.startswith("| `python ")]
IMAGES = 9


@pytest.fixture(autouse=True)
def _machine(popart_double, monkeypatch, tmp_path):
    """IPUs that processes share, and a place with images in COCO's layout."""
    (tmp_path / "pool").mkdir()
    monkeypatch.setenv("POPART_DOUBLE_POOL", str(tmp_path / "pool"))
    monkeypatch.setenv("POPART_DOUBLE_LOG", str(tmp_path / "events"))
    monkeypatch.setenv("POPART_DOUBLE_IMPORT_ORDER", "strict")
    monkeypatch.chdir(tmp_path)
    Path("val2014").mkdir()
    for number in range(IMAGES):
        Image.new("RGB", (40, 36), (25 * number, 90, 9)).save(
            f"val2014/COCO_val2014_{number:012d}.jpg", "JPEG")
    use(None)


@pytest.fixture
def cli(capsys):
    def run(*argv):
        assert invoke(list(argv)) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return run


def _small(command):
    """Return the words of a command, for a small network and two IPUs."""
    for word, smaller in (("resnext101_32x4d", "resnet8-cifar"), ("partitions 8", "partitions 2"),
                          ("instances 8", "instances 2"), ("num_ipus 4", "num_ipus 2"),
                          ("_step 1500", "_step 2"), ("iterations 10", "iterations 2")):
        command = command.replace(word, smaller)
    more = {"export": ["--weights", "random"], "run": ["--json", "--dataloader-worker", "1"]}
    if "--synthetic" in command:
        more["run"] = ["--json"]
    words = shlex.split(command)
    return [*words, *more.get(words[0], [])]


def test_the_old_quick_start(cli):
    partition, export, launch, synthetic = map(_small, COMMANDS)
    cli(*partition)
    cli(*export)
    assert Path("models/resnet8-cifar/model_6.onnx").is_file()
    result = json.loads(cli(*launch, "--predictions", "all.csv"))
    assert result["backend"] == "popart"
    assert result["images"] == IMAGES
    assert [own["images"] for own in result["instances"]] == [5, 4]
    assert len(Path("all.csv").read_text().splitlines()) == IMAGES + 1
    events = [json.loads(line) for line in Path("events").read_text().splitlines()]
    assert [(event["event"], event["ipus"]) for event in events] == [("compiled", 1)] * 2
    result = json.loads(cli(*synthetic))
    assert result["images"] == 24
    assert result["session"]["cycles"] > 0


def test_every_option_of_the_backend_is_in_the_table():
    table = PAGE.read_text().partition("## What each option does")[2]
    flags = [item.flag for item in declared(PopArtOptions)]
    flags += [item.flag for item in common_options(TrainOptions)
              if item.option.feature in ipucnn_backends()[0].features]
    missing = [flag for flag in flags if f"`{flag}`" not in table]
    assert missing == []
