"""The commands in the page on the PopTorch backend, run on the double."""

from __future__ import annotations

import random
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from ipucnn.__main__ import invoke
from ipucnn.core.options.composition import common_options
from ipucnn.core.options.declaration import declared
from ipucnn.core.registry.registry import use
from ipucnn.plugins.backends.poptorch import ipucnn_backends
from ipucnn.plugins.backends.poptorch.options import PopTorchOptions
from ipucnn.training.options.train_options import TrainOptions

PAGE = Path(__file__).parents[2] / "docs" / "backends" / "poptorch.md"
OLD = {"run_benchmark.py": "run", "train.py": "train", "restore.py": "restore",
       "validate.py": "validate"}
ROWS = [tuple(re.findall(r"`([^`]+)`", line)) for line in PAGE.read_text().splitlines()
        if line.startswith("| `python3 ")]
SMALL = {"run": "--input-size 32 --device-iterations 2 --batch-size 2 --iterations 3 "
                "--random-weights",
         "train": "--input-size 32 --iterations 1 --epoch 1 --batch-size 2 --device-iterations 1"}


@pytest.fixture(autouse=True)
def _machine(poptorch_double, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    use(None)


def _pictures(folder):
    for number in range(5):
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (40 * number, 90, 9)).save(str(folder / f"{number}.JPEG"))


@pytest.fixture
def data(tmp_path):
    """Everything that the commands read, small."""
    _pictures(tmp_path / "data" / "images")
    for split in ("train", "validation"):
        for name in ("n01440764", "n01443537"):
            _pictures(tmp_path / "path-to" / "imagenet" / split / name)
    chance = random.Random(0)
    folder = tmp_path / "data" / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("".join(f"class{i}\n" for i in range(10)))
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / f"{name}.bin").write_bytes(b"".join(
            bytes([i % 10]) + chance.getrandbits(8 * 3072).to_bytes(3072, "big")
            for i in range(30)))


@pytest.fixture
def cli(capsys):
    def run(*words):
        code = invoke([*words, "--progress", "off"])
        out, err = capsys.readouterr()
        assert code == 0, err
        return out

    return run


@pytest.mark.parametrize(("old", "new"), ROWS, ids=[f"line {i}" for i in range(len(ROWS))])
def test_the_line_of_the_table_runs(cli, data, old, new):
    _, script, *options = shlex.split(old)
    assert shlex.split(new) == ["ipucnn", OLD[script], *options]
    command = OLD[script]
    if command in ("restore", "validate"):
        cli("train", "--data", "imagenet", "--data-dir", "path-to/imagenet", "--backend",
            "poptorch", "--model", "resnet8-cifar", "--checkpoint-path", "saved",
            *shlex.split(SMALL["train"]))
        out = cli(command, "--checkpoint-path", "saved")
    else:
        small = SMALL[command]
        if "--pipeline-splits" in options:  # the smallest accumulation that fills four stages
            small += " --gradient-accumulation 7 --replicas 2"
        out = cli(command, *options, "--backend", "poptorch", *shlex.split(small))
        assert "latency" in out
    assert "IPU version 2" in out or command == "validate"


def test_every_option_of_the_backend_is_in_the_table():
    table = PAGE.read_text().partition("## What each option does")[2].partition("## Training")[0]
    flags = [item.flag for item in declared(PopTorchOptions)]
    flags += [item.flag for item in common_options(TrainOptions)
              if item.option.feature in ipucnn_backends()[0].features]
    missing = [flag for flag in flags if f"`{flag}`" not in table]
    assert missing == []
