"""The script for owners of CUDA devices, tried on the CPU."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


def test_the_script_compares_trainings_and_measures_them(tmp_path, monkeypatch, capsys):
    pytest.importorskip("timm")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delitem(sys.modules, "common", raising=False)
    monkeypatch.setattr(sys, "argv", [
        "cards.py", "--device", "cpu", "--optimizers", "sgd", "--model", "resnet18",
        "--batch-size", "4", "--size", "32", "--updates", "2", "--photographs", "16",
        "--rounds", "1"])
    spec = importlib.util.spec_from_file_location("cards_benchmark", SCRIPTS / "cards.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, script)  # its dataclasses look for it
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys.modules["common"], "RESULTS", tmp_path)
    assert script.main() == 0
    written = json.loads((tmp_path / "cuda.json").read_text())
    assert written["difference_to_cpu"] == {"sgd": 0.0}
    assert set(written["difference_on_the_device"].values()) == {0.0}
    assert len(written["images_per_second"]) == 5
    assert set(written["ratios"]) == {
        "to the bare loop", "overlap: files to images on the device",
        "to timm, images on the device", "to timm, JPEG files"}
    assert "to timm, JPEG files" in capsys.readouterr().out
    monkeypatch.delitem(sys.modules, "common", raising=False)
