"""Errors of PopART in `ipucnn run`: one line, and a hint."""

from __future__ import annotations

import importlib
import json
import sys
from threading import Lock

import pytest

from ipucnn.__main__ import invoke
from ipucnn.core.registry.registry import use

PLUGIN = """
from ipucnn import ModelSpec, hookimpl

@hookimpl
def ipucnn_models():
    return [ModelSpec(name="tinynet", summary="two layers", target=build, input_size=16,
                      num_classes=7)]

def build(num_classes):
    from torch import nn
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(4, num_classes))
"""


@pytest.fixture
def failed(tmp_path, monkeypatch, capsys):
    """Return a function that runs a command that fails, and gives its error line and its hint."""
    plugin = tmp_path / "tinynet_plugin.py"
    plugin.write_text(PLUGIN)
    monkeypatch.setenv("IPUCNN_PLUGIN", str(plugin))
    monkeypatch.chdir(tmp_path)
    use(None)

    def run(*options, code):
        assert invoke(["run", "--random-weights", "--iterations", "1", "--model", "tinynet",
                       "--data", "generated", "--precision", "full", "--progress", "off",
                       "--backend", "popart", *options]) == code
        out, err = capsys.readouterr()
        if not code:
            return json.loads(out)
        assert "Traceback" not in err
        lines = err.strip().splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("error: "))
        assert [line.split(":")[0] for line in lines[start:]] == ["error", "hint"]
        return lines[start], lines[start + 1]

    yield run
    use(None)


@pytest.fixture
def machine(popart_double):
    """The device that the double simulates."""
    return popart_double._machine.MACHINE


@pytest.fixture
def package(popart_double, tmp_path, monkeypatch):
    """Return what puts another `popart` in the place of the double."""
    def put(code):
        for name in [name for name in sys.modules if name.split(".")[0] == "popart"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.delitem(sys.modules, "onnx", raising=False)
        (tmp_path / "popart").mkdir()
        (tmp_path / "popart" / "__init__.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    return put


# -- the SDK -----------------------------------------------------------------------------------


def test_no_sdk(failed):
    error, hint = failed(code=2)
    assert "needs 'popart', which cannot be imported here" in error
    assert "Poplar SDK" in hint
    assert "pip install" not in hint


@pytest.mark.parametrize("version", ["3.2.0+1", "2.6.0"])
def test_an_old_sdk(popart_double, failed, monkeypatch, version):
    monkeypatch.setattr(popart_double, "versionString", lambda: version)
    error, hint = failed(code=2)
    assert f"'popart' is of version {version}, and this backend needs 3.3 or 3.4" in error
    assert "Poplar SDK (3.3 and 3.4" in hint


@pytest.mark.parametrize(("version", "noted"), [
    ("3.3.0+1", False), ("3.4.0", False), ("3.5.0", True), ("unknown", True)])
def test_a_newer_sdk_is_tried_with_a_note(popart_double, failed, monkeypatch, version, noted):
    monkeypatch.setattr(popart_double, "versionString", lambda: version)
    notes = failed("--json", code=0)["notes"]
    assert any(version in note and "3.3 or 3.4" in note for note in notes) is noted


@pytest.mark.parametrize("code", [
    "raise ImportError('libpopart.so: cannot open shared object file\\nmore')",
    "import popart_core.libpopart.so",
    "raise RuntimeError('libpopart.so. Hint: Python version')"])
def test_an_sdk_that_is_not_enabled(package, failed, code):
    package(code)
    error, hint = failed(code=2)
    assert "cannot be imported" in error
    assert "libpopart.so" in error or "popart_core" in error
    assert "enable.sh" in hint


def test_another_package_of_that_name(package, failed, tmp_path):
    package("__version__ = '9.9'")
    error, hint = failed(code=2)
    assert "is not Graphcore's" in error
    assert str(tmp_path) in error
    assert "pip uninstall popart" in hint


def test_onnx_came_first(package, failed, monkeypatch):
    package("raise ImportError('It looks like onnx has already been imported.')")
    monkeypatch.setitem(sys.modules, "onnx", object())
    error, hint = failed(code=2)
    assert "'popart' must be imported before 'onnx'" in error
    assert "import popart at the beginning" in hint


# -- the IPUs ----------------------------------------------------------------------------------


def test_no_ipu(machine, failed):
    machine.ipus = 0
    error, hint = failed(code=2)
    assert "this machine has no IPU" in error
    assert "--ipu-model" in hint
    assert "--offline-target-ipu-version" in hint


def test_a_driver_that_fails(popart_double, failed, monkeypatch):
    def fails(*_, **__):
        raise popart_double.poplar_exception("no driver\nstack")

    monkeypatch.setattr(popart_double.DeviceManager, "enumerateDevices", fails)
    error, _ = failed(code=2)
    assert "the IPU driver failed: no driver" in error


@pytest.mark.parametrize(("options", "ipus", "message"), [
    (["--replicas", "3"], 16, "3 replicas of 1 pipeline stages need 3 IPUs, and IPUs are only"),
    (["--replicas", "4"], 2, "4 replicas of 1 pipeline stages need 4 IPUs, and this machine has"),
    (["--replicas", "128"], 256, "need 128 IPUs, and a process can use 64")])
def test_ipus_that_cannot_be_had(machine, failed, options, ipus, message):
    machine.ipus = ipus
    error, hint = failed(*options, code=2)
    assert message in error
    assert "replicas" in hint


def test_no_free_ipu(machine, failed):
    assert machine.take(range(machine.ipus))
    error, hint = failed(code=1)
    assert "no IPU is free" in error
    assert "gc-monitor" in hint


def test_an_ipu_that_is_taken_before_the_program_is_ready(popart_double, machine, failed,
                                                          monkeypatch):
    prepare = popart_double.InferenceSession.prepareDevice

    def late(session, *given):
        machine.take(range(machine.ipus))
        prepare(session, *given)

    monkeypatch.setattr(popart_double.InferenceSession, "prepareDevice", late)
    error, hint = failed("--connection-type", "ondemand", code=1)
    assert "the model cannot be compiled on the IPU: Failed to attach to device" in error
    assert "gc-monitor" in hint


def test_out_of_memory(machine, failed):
    machine.bytes_per_ipu = 100
    error, hint = failed("--batch-size", "3", code=1)
    assert "Out of memory" in error
    for way in ("'--batch-size' than 3", "--available-memory-proportion", "--half-partial",
                "pipeline splits", "'--precision half'"):
        assert way in hint
    assert not machine.taken


@pytest.mark.parametrize(("name", "message"), [
    ("poplar_recoverable_runtime_error", "(LINK_RESET)"),
    ("poplar_unrecoverable_runtime_error", "hardware"),
    ("poplar_application_runtime_error", "POPART_LOG_LEVEL"), ("poplibs_exception", "LOG_LEVEL"),
    ("popart_internal_exception", "LOG_LEVEL")])
def test_a_device_that_fails_while_it_runs(popart_double, machine, failed, name, message):
    machine.fails = getattr(popart_double, name)("link is down\nmore")
    machine.fails.recoveryAction = popart_double.RecoveryAction.LINK_RESET
    error, hint = failed(code=1)
    assert error.endswith("the model cannot run on the IPU: link is down")
    assert message in hint
    assert not machine.taken


def test_a_graph_that_popart_does_not_read(popart_double, failed, monkeypatch):
    def fails(*_):
        raise popart_double.popart_exception("the checker refuses it\nmore")

    monkeypatch.setattr(popart_double, "GraphTransformer", fails)
    error, hint = failed(code=1)
    assert error.endswith("the model cannot be prepared on the IPU: the checker refuses it")
    assert "POPART_LOG_LEVEL" in hint


@pytest.mark.parametrize("called_by", ["PopART", "ipucnn"])
def test_an_error_of_a_library_below_popart(popart_double, machine, failed, monkeypatch, called_by):
    name = "_check_memory" if called_by == "PopART" else "weightsFromHost"
    # a built-in function raises it without a frame, as a compiled one of PopART
    monkeypatch.setattr(popart_double.InferenceSession, name, Lock().release)
    error, hint = failed(code=1)
    assert error.endswith("the model cannot be compiled on the IPU: release unlocked lock")
    assert "POPART_LOG_LEVEL" in hint
    assert not machine.taken


# -- options that contradict each other --------------------------------------------------------


@pytest.mark.parametrize(("options", "message"), [
    (["--offline-target-ipu-version", "3", "--compile-only"], "there is no IPU version 3"),
    (["--offline-target-ipu-version", "2"], "cannot be run here"),
    (["--offline-target-ipu-version", "2", "--compile-only", "--ipu-model"], "exclude each other"),
    (["--ipu-model", "--connection-type", "ondemand"], "without IPUs to take"),
    (["--simulation", "--model-cache-path", "cache"], "keeps no compiled models"),
    (["--precision", "half", "--full-precision-norm"],
     "'--full-precision-norm' is not an option of backend 'popart'"),
    (["--num-io-tiles", "33"], "33 tiles cannot be set aside"),
    (["--precision", "int8"], "does not compute in precision 'int8'")])
def test_options_that_cannot_be(machine, failed, options, message):
    error, _ = failed(*options, code=2)
    assert message in error


def test_an_operator_that_popart_lacks(popart_double, failed, tmp_path):
    (tmp_path / "tinynet_plugin.py").write_text(PLUGIN.replace("nn.ReLU()", "Det()").replace(
        "    from torch import nn\n", """    from torch import nn

    class Det(nn.Module):
        def forward(self, x):
            return x.det().view(-1, 4, 1, 1)

"""))
    error, hint = failed(code=2)
    assert "Det" in error
    assert "another network" in hint
