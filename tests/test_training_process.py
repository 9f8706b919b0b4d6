"""Real processes killed for real: a restored training is the uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked import Forked, ipucnn

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TRAINING = ["train", "--model", "resnet8-cifar", "--data", "shapes", "--input-size", "32",
            "--precision", "full", "--batch-size", "4", "--gradient-accumulation", "2",
            "--iterations", "8", "--epoch", "3", "--lr", "0.05", "--logs-per-epoch", "4",
            "--checkpoint-save-steps", "2", "--mixup-alpha", "0.2", "--ema-decay", "0.9",
            "--validation-mode", "none", "--dataloader-worker", "3", "--progress", "off"]


def start(*argv):
    return Forked(ipucnn, argv, ENVIRONMENT)


def run(*argv):
    process = start(*argv)
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_small_fault_campaign_loses_nothing(tmp_path):
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "faults.py"
    out = tmp_path / "faults.json"
    done = subprocess.run(
        [sys.executable, str(script), "--model", "resnet8-cifar", "--optimizers", "rmsprop_tf",
         "--runs", "1", "--faults", "kills", "damage", "--kills", "1", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True, timeout=900)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["runs"] == 2
    assert result["faults"] >= 2
    assert result["runs_that_lost_anything"] == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info < (3, 9), reason="the campaign needs a newer Python")
def test_a_few_kills_at_writes_lose_nothing(tmp_path):
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "faults.py"
    out = tmp_path / "kills.json"
    done = subprocess.run(
        [sys.executable, str(script), "--every-write", "--only", "none, every 2, keep 1, plain",
         "--point-step", "11", "--jobs", "1", "--out", str(out)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True, timeout=300, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["points"] > 50
    assert result["kills"] >= result["points"] // 11
    assert result["runs_that_lost_anything"] == 0


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


def test_a_folder_deleted_during_a_training_is_created_again(tmp_path):
    import shutil

    folder = tmp_path / "c"
    process = start(*TRAINING, "--log-dir", tmp_path / "log", "--checkpoint-path",
                    folder)
    deadline = time.monotonic() + 120
    while not list(folder.glob("*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    shutil.rmtree(str(folder), ignore_errors=True)
    _out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert str(folder) in err
    assert (folder / "resnet8-cifar_shapes_3.pt").exists()
