"""Real processes killed for real: a restored training is the uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

IPUCNN = [sys.executable, "-m", "ipucnn"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TRAINING = ["train", "--model", "mobilenet-v3-small", "--data", "shapes", "--input-size", "32",
            "--precision", "full", "--batch-size", "4", "--gradient-accumulation", "2",
            "--iterations", "8", "--epoch", "3", "--lr", "0.05", "--logs-per-epoch", "4",
            "--checkpoint-save-steps", "2", "--mixup-alpha", "0.2", "--ema-decay", "0.9",
            "--validation-mode", "none", "--dataloader-worker", "3", "--progress", "off"]
CLOCK = ("images_per_second", "data_wait_share")


def run(*argv, **options):
    return subprocess.run([*IPUCNN, *map(str, argv)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, env=ENVIRONMENT,
                          timeout=240, **options)


def start(*argv):
    return subprocess.Popen([*IPUCNN, *map(str, argv)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, universal_newlines=True, env=ENVIRONMENT)


def remains(folder: Path):
    """What a training left behind, without what the clock wrote."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        for name in CLOCK:
            row.pop(name, None)
    return rows, {path.name: path.read_bytes() for path in folder.glob("*.pt")}


def train_with_kills(folder: Path, kills: int, seed: int, *extra: str) -> int:
    """Train, being killed at random moments; return how often."""
    chance = random.Random(seed)
    os.makedirs(folder.parent, exist_ok=True)
    done = 0
    while True:
        begun = list(folder.glob("*.pt")) if folder.exists() else []
        argv = ["restore", "--checkpoint-path", folder, "--progress", "off"] if begun else [
            *TRAINING, *extra, "--checkpoint-path", folder]
        process = start(*argv)
        if done < kills:
            seen = len(begun)
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                now = set(folder.glob("*.pt")) if folder.exists() else set()
                if now != set(begun) and len(now) >= min(1, seen):
                    break
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
            process.communicate()
            done += 1
            continue
        _out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        return done


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd"])
def test_killed_and_restored_equals_uninterrupted(tmp_path, optimizer):
    extra = ["--optimizer", optimizer]
    if optimizer == "sgd":
        extra += ["--momentum", "0.9"]
    whole = tmp_path / "whole" / "c"
    finished = run(*TRAINING, *extra, "--checkpoint-path", whole)
    assert finished.returncode == 0, finished.stderr
    pieces = tmp_path / "pieces" / "c"
    # the saved options name the folder, so both trainings are made to use the same name
    train_with_kills(pieces, 2, 1, *extra)
    rows, files = remains(whole)
    again_rows, again_files = remains(pieces)
    assert again_rows == rows
    assert sorted(again_files) == sorted(files)
    import torch

    for name in files:
        a, b = (torch.load(folder / name, weights_only=True) for folder in (whole, pieces))
        for content in (a, b):
            assert content.pop("options")
        assert same(a, b), name


def same(a, b) -> bool:
    import torch

    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_step_and_saves(tmp_path, number, code):
    folder = tmp_path / "c"
    process = start(*TRAINING, "--epoch", "500", "--checkpoint-path", folder)
    deadline = time.monotonic() + 120
    while not list(folder.glob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "saving after this step" in err
    assert "Traceback" not in err
    restored = run("restore", "--checkpoint-path", folder, "--epoch", "1", "--progress", "off")
    assert restored.returncode == 0, restored.stderr
    assert not list(folder.glob(".*.tmp"))


def test_a_second_signal_aborts(tmp_path):
    process = start(*TRAINING, "--epoch", "500", "--batch-size", "64", "--iterations", "1",
                    "--gradient-accumulation", "16", "--checkpoint-path", tmp_path / "c")
    deadline = time.monotonic() + 120
    while not (tmp_path / "c" / "options.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_a_folder_deleted_under_way_is_made_anew(tmp_path):
    import shutil

    folder = tmp_path / "c"
    process = start(*TRAINING, "--epoch", "40", "--log-dir", tmp_path / "log", "--checkpoint-path",
                    folder)
    deadline = time.monotonic() + 120
    while not list(folder.glob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    shutil.rmtree(str(folder), ignore_errors=True)
    _out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert str(folder) in err
    assert (folder / "mobilenet-v3-small_shapes_40.pt").exists()
