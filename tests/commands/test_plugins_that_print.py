"""What plugins print does not reach the JSON on standard output."""

from __future__ import annotations

import json
from pathlib import Path

from ipucnn.__main__ import invoke

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


def test_json_is_the_only_standard_output(tmp_path, monkeypatch, capfd):
    """`capfd` reads the descriptors, as a program that reads the JSON does."""
    monkeypatch.chdir(tmp_path)
    Path("loud.py").write_text(PLUGIN)
    for words in COMMANDS:
        code = invoke(["--plugin", "loud.py", *words, "--json"])
        out, err = capfd.readouterr()
        assert code == 0, err
        assert isinstance(json.loads(out), dict), words
        assert "noise" in err, words
        assert "noise of C" in err or words[0] not in ("run", "train", "validate"), words
