"""Files of results are written even if standard output is closed or full."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ipucnn.__main__ import invoke
from ipucnn.benchmarking import networks
from ipucnn.benchmarking.network_result import NetworkBench

NETWORK = ["--model", "resnet8-cifar", "--backend", "torch", "--progress", "off"]
TRAIN = ["train", *NETWORK, "--data", "image_folder", "--data-dir", "tiny-images",
         "--input-size", "32", "--epoch", "1", "--batch-size", "2", "--no-validation",
         "--checkpoint-path", "ckpt"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = NetworkBench({"rounds": 1}, {"processor": "", "cores": 1, "threads": 1},
                          "2026-01-01 00:00 UTC")
    monkeypatch.setattr(networks, "bench", lambda *_, **__: result)


@pytest.mark.usefixtures("tiny_images")
def test_results_and_reports_are_written_before_anything_is_printed(monkeypatch, capsys):
    def run(*argv):
        with open("/dev/full", "w") as out, monkeypatch.context() as patch:
            patch.setattr("sys.stdout", out)
            return invoke([*argv, "--result", "r.json"])

    for argv, pages in (
            (["run", *NETWORK, "--weights", "random", "--data", "synthetic", "--iterations", "1",
              "--report", "run.html"], ["run.html"]),
            (["bench"], []), (TRAIN, ["ckpt/report.html"]),
            (["validate", "--checkpoint-path", "ckpt", "--validation-data-dir", "tiny-images",
              "--report", "scores.html", "--progress", "off", "--json"], ["scores.html"])):
        assert run(*argv) == 1, argv
        assert "cannot write to standard output" in capsys.readouterr().err
        assert json.loads(Path("r.json").read_text())["format"].startswith("ipucnn.")
        os.remove("r.json")
        assert all(map(os.path.exists, pages)), argv

    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as out, open(os.dup(writer), "w") as err, \
            monkeypatch.context() as patch:
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", err)
        assert invoke(["validate", "--checkpoint-path", "ckpt", "--validation-data-dir",
                       "tiny-images", "--progress", "off", "--result", "r.json"]) == 141
    assert json.loads(Path("r.json").read_text())["format"].startswith("ipucnn.")
