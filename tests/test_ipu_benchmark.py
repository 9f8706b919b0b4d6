"""The script for owners of IPUs, on the doubles; and what `doctor --deep` does with them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from ipucnn.core.registry.discovery import PluginSettings
from ipucnn.core.registry.registry import Registry, use
from ipucnn.doctor import job as doctor

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "ipu.py"


@pytest.fixture(autouse=True)
def doubles(popart_double, poptorch_double):
    """Both doubles can be imported, and no plugin of a third party is."""
    use(Registry(PluginSettings(disable_all=True)))
    yield
    use(None)


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("ipu_benchmark", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # its dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def run(script, tmp_path, *words):
    code = script.main(["--out", str(tmp_path / "ipu.json"), *words])
    return code, json.loads((tmp_path / "ipu.json").read_text())


@pytest.mark.parametrize("only", ["cache", "resume of adamw", "inference in a pipeline",
                                  "training 16.32"])
def test_what_is_tried_agrees_with_torch(script, tmp_path, only):
    code, written = run(script, tmp_path, "--only", only)
    assert code == 0, written["steps"]
    assert [step["name"] for step in written["steps"]] == [
        f"popart: {only}", f"poptorch: {only}"]
    assert {step["state"] for step in written["steps"]} == {"ok"}
    assert written["backends"]["popart"]["popart"].startswith("3.3")


def test_every_difference_and_error_is_written(script, tmp_path, monkeypatch, popart_double):
    monkeypatch.setattr(script, "TOLERANCE", {"32.32": 0.0})
    code, written = run(script, tmp_path, "--backends", "popart", "--only", "inference 32.32")
    assert code == 1
    (step,) = written["steps"]
    assert (step["state"], step["figures"]["allowed"]) == ("differs", 0.0)
    popart_double._machine.MACHINE.fails = popart_double.poplar_exception("no luck")
    code, written = run(script, tmp_path, "--backends", "popart", "--only", "inference 32.32")
    assert code == 1
    assert "no luck" in written["steps"][0]["text"]


def test_without_poprun_its_step_is_left_out(script, tmp_path):
    code, written = run(script, tmp_path, "--backends", "poptorch", "--only", "poprun",
                        "--launcher", "no-such-poprun -n 2")
    assert (code, written["steps"][0]["state"]) == (0, "left out")


def test_deep_computes_on_ipus():
    report = doctor.examine(deep=True, plugins=Registry(PluginSettings(disable_all=True)))
    for name in ("popart", "poptorch", "torch"):
        (check,) = [one for one in report.checks if one.name == f"backend {name} computes"]
        assert check.status == doctor.OK, check.detail
        assert "a small network compiles in" in check.detail
