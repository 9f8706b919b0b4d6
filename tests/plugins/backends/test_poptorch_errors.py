"""Errors of IPUs and their SDK in commands: one line, and a hint."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch

from ipucnn.__main__ import invoke
from ipucnn.core.registry.registry import use

COMMANDS = {
    "run": ["run", "--random-weights", "--iterations", "1"],
    "train": ["train", "--iterations", "1", "--epoch", "1", "--no-validation", "--lr", "0.1"]}
COMMON = ["--model", "tiny", "--data", "generated", "--precision", "full", "--progress", "off",
          "--backend", "poptorch"]


@pytest.fixture(params=sorted(COMMANDS))
def failed(request, tmp_path, monkeypatch, capsys):
    """Return a function that runs a command that fails, and gives its error line and its hint."""
    monkeypatch.setenv("IPUCNN_PLUGIN", str(Path(__file__).parents[2] / "tiny_plugin.py"))
    monkeypatch.chdir(tmp_path)
    use(None)

    def run(*options, code):
        assert invoke([*COMMANDS[request.param], *COMMON, *options]) == code
        out, err = capsys.readouterr()
        lines = err.strip().splitlines()
        if not code:
            return json.loads(out)
        assert "Traceback" not in err
        start = next(i for i, line in enumerate(lines) if line.startswith("error: "))
        assert [line.split(":")[0] for line in lines[start:]] == ["error", "hint"]
        return lines[start], lines[start + 1]

    run.command = request.param
    yield run
    use(None)


@pytest.fixture
def machine(poptorch_double):
    """The device that the double simulates."""
    return poptorch_double._machine.MACHINE


def _package(folder, monkeypatch, code):
    (folder / "poptorch").mkdir()
    (folder / "poptorch" / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()


# -- the SDK -----------------------------------------------------------------------------------


def test_no_sdk(without_poptorch, failed):
    error, hint = failed(code=2)
    assert "needs 'poptorch', which cannot be imported here" in error
    assert "Poplar SDK" in hint
    assert "pip install" not in hint


@pytest.mark.parametrize("version", ["3.2.0-11c9c1b", "2.6.0"])
def test_an_old_sdk(poptorch_double, failed, monkeypatch, version):
    monkeypatch.setattr(poptorch_double, "__version__", version)
    error, hint = failed(code=2)
    assert f"'poptorch' is of version {version}, and this backend needs 3.3 or 3.4" in error
    assert "Poplar SDK (3.3 and 3.4" in hint


@pytest.mark.parametrize(("version", "noted"), [
    ("3.3.0-7e7a4b7", False), ("3.4.0-1", False), ("3.5.0-1", True), ("4.0", True),
    ("unknown", True)])
def test_a_newer_sdk_is_tried_with_a_note(poptorch_double, failed, monkeypatch, version, noted):
    monkeypatch.setattr(poptorch_double, "__version__", version)
    notes = failed("--json", code=0)["notes"]
    assert any(version in note and "3.3 or 3.4" in note for note in notes) is noted


def test_the_wrong_torch(without_poptorch, failed, monkeypatch, tmp_path):
    _package(tmp_path, monkeypatch,
             "assert False, 'This version of PopTorch only works with torch==1.13.1 but the "
             "version installed is another'")
    error, hint = failed(code=2)
    assert f"not made for torch {torch.__version__}" in error
    assert "torch==1.13.1" in error
    assert "torch 2.0.1, torchvision 0.15.2 and Python 3.8" in hint


def test_an_sdk_that_is_not_enabled(without_poptorch, failed, monkeypatch, tmp_path):
    _package(tmp_path, monkeypatch,
             "raise ImportError('Unable to import PopTorch, without an active Poplar SDK.\\nmore')")
    error, hint = failed(code=2)
    assert "without an active Poplar SDK." in error
    assert "enable.sh" in hint


def test_another_package_of_that_name(without_poptorch, failed, monkeypatch, tmp_path):
    _package(tmp_path, monkeypatch, "__version__ = '9.9'")
    error, hint = failed(code=2)
    assert "is not Graphcore's" in error
    assert str(tmp_path) in error
    assert "pip uninstall poptorch" in hint


# -- the IPUs ----------------------------------------------------------------------------------


def test_no_ipu(machine, failed):
    machine.ipus = 0
    error, hint = failed(code=2)
    assert "this machine has no IPU" in error
    assert "POPTORCH_IPU_MODEL=1" in hint


def test_fewer_ipus_than_needed(machine, failed):
    machine.ipus = 2
    error, hint = failed("--replicas", "4", code=2)
    assert "4 replicas of 1 pipeline stages need 4 IPUs, and this machine has fewer" in error
    assert "'--replicas'" in hint


def test_no_free_ipu(machine, failed):
    machine.busy = True
    error, hint = failed(code=1)
    assert "Failed to acquire 1 IPU" in error
    assert "POPTORCH_WAIT_FOR_IPU=1" in hint


def test_no_free_ipu_on_demand(machine, failed):
    machine.busy = True
    error, hint = failed("--connection-type", "ondemand", code=1)
    assert "Failed to attach to device" in error
    assert "without '--connection-type ondemand'" in hint


def test_out_of_memory(machine, failed):
    machine.bytes_per_ipu = 100
    error, hint = failed("--batch-size", "3", code=1)
    assert "Out of memory" in error
    for way in ("'--batch-size' than 3", "--available-memory-proportion", "--half-partial",
                "pipeline splits"):
        assert way in hint
    assert ("--recompute-mode" in hint) is (failed.command == "train")
    assert ("--offload-optimizer" in hint) is (failed.command == "train")


@pytest.mark.parametrize(("name", "action", "message"), [
    ("RecoverableError", "LINK_RESET", "LINK_RESET"), ("UnrecoverableError", None, "hardware"),
    ("Error", None, "POPTORCH_LOG_LEVEL")])
def test_a_device_that_fails_while_it_runs(poptorch_double, machine, failed, name, action, message):
    kind = getattr(poptorch_double, name)
    machine.fails = poptorch_double._errors.failure("link is down\nmore", "poplar_x", kind)
    if action:
        kind.recovery_action = action
    error, hint = failed(code=1)
    assert error.endswith("on the IPU: link is down")
    assert message in hint


def test_io_tiles_and_a_pipeline(machine, failed):
    enough = ["--device-iterations", "2"] if failed.command == "run" \
        else ["--gradient-accumulation", "3"]
    error, hint = failed("--num-io-tiles", "32", "--pipeline-splits", "2", *enough, code=2)
    assert "'--num-io-tiles' and pipeline splits exclude each other" in error
    assert "leave one of them out" in hint
