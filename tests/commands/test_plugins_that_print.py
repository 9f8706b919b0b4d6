"""What plugins print does not reach the JSON on standard output."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PLUGIN = """
import os

import ipucnn


def build(num_classes):
    from torch import nn

    class Loud(nn.Linear):
        def forward(self, inputs):
            print("noise of Python")
            os.write(1, b"noise of C\\n")
            return super().forward(inputs)

    print("noise of the target")
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), Loud(12, num_classes))


@ipucnn.hookimpl
def ipucnn_models():
    return [ipucnn.ModelSpec(name="loud", summary="s", target=build, input_size=16)]
"""
SMALL = ("--model", "loud", "--data", "shapes", "--batch-size", "4", "--iterations", "1",
         "--backend", "torch", "--precision", "full")
COMMANDS = [
    ("run", *SMALL, "--weights", "random"),
    ("train", *SMALL, "--epoch", "1", "--no-report", "--checkpoint-path", "checkpoints"),
    ("validate", "--checkpoint-path", "checkpoints"),
    ("plan", *SMALL, "--epoch", "1"),
    ("show", "model", "loud"),
]


@pytest.fixture
def folder(tmp_path):
    """Return a folder with the plugin."""
    (tmp_path / "loud.py").write_text(PLUGIN)
    return tmp_path


def test_json_is_the_only_standard_output(folder):
    """In a process, whose descriptors are its own."""
    for words in COMMANDS:
        done = subprocess.run(
            [sys.executable, "-m", "ipucnn", "--plugin", "loud.py", *words, "--json"], cwd=folder,
            capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        assert isinstance(json.loads(done.stdout), dict), words
        assert "noise" in done.stderr, words
