"""The openvino backend: as every engine that reads ONNX, and 8-bit integers."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import openvino
import pytest
import torch
from engine_checks import (
    SIZE,
    SMALL,
    TOLERANCE,
    EngineChecks,
    difference,
    exported_file,
    images_of,
    logits_of_torch,
    model_of,
    run_file,
    run_with,
)
from PIL import Image

from ipucnn.core.errors import DataError, IpucnnError, UnavailableError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.data.formats.sample_data import GeneratedFiles, write_made
from ipucnn.inference.calibration_images import CalibrationImages
from ipucnn.onnx.kept_folders import KeptFolder
from ipucnn.plugins.backends.openvino import devices, engine
from ipucnn.plugins.backends.openvino import inference as session
from ipucnn.plugins.backends.openvino.engine import OpenVinoBackend
from ipucnn.plugins.backends.openvino.quantised_cache import QuantisedCache
from ipucnn.terminal import tables as render

TINY = str(Path(__file__).parents[2] / "tiny_plugin.py")


class TestOpenVino(EngineChecks):
    backend, name = OpenVinoBackend, "openvino"


def _command(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "ipucnn", "--plugin", TINY, "run", "--backend", "ov", "--model",
         "tiny", "--num-classes", "8", "--weights", "random", "--input-size", "32", "--json",
         *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=True)


def _without_half(monkeypatch):
    for module in (devices, engine, session):
        monkeypatch.setattr(module, "half_type", lambda core, device: "")


def test_a_cpu_without_bfloat16_rounds_the_weights_with_a_note(monkeypatch):
    _without_half(monkeypatch)
    probe = OpenVinoBackend().probe_for(ExecutionPlan())
    assert probe.half == "bfloat16"
    assert "no half-precision arithmetic" in probe.notes[0]
    assert OpenVinoBackend().probe_for(ExecutionPlan(precision="32.32")).notes == ()
    images = images_of(2)
    with OpenVinoBackend().inference(model_of(SMALL), ExecutionPlan(micro_batch=2),
                                     SIZE) as half:
        half.compile()
        logits = half(images)
        assert half.facts["weights_type"] == "bfloat16"
        assert half.facts["arithmetic"] == "float32"
    off = difference(logits, logits_of_torch(model_of(SMALL), images))
    assert TOLERANCE["32.32"] < off < TOLERANCE["16.16"]


def test_half_precision_is_what_the_cpu_offers():
    core = openvino.Core()
    offered = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    with OpenVinoBackend().inference(model_of(SMALL), ExecutionPlan(), SIZE) as half:
        half.compile()
        assert half.facts["arithmetic"] == ("bfloat16" if offered else "float32")


def test_micro_batches_of_a_host_call_are_in_flight_together(threads):
    threads(2)
    plan = ExecutionPlan(micro_batch=2, device_iterations=4, precision="32.32", calls_in_flight=2)
    with OpenVinoBackend().inference(model_of(SMALL), plan, SIZE) as made:
        made.compile()
        assert made.samples_per_call == 2
        assert made.in_flight == made.facts["requests"] == 4  # twice the threads
        assert made.facts["threads"] == 2


def test_inputs_stay_until_calls_in_flight_have_ended():
    ended = []
    made = OpenVinoBackend().inference(model_of(SMALL), ExecutionPlan(precision="32.32"), SIZE)
    with made:
        made.compile()

        class Request:
            def wait(self):
                ended.append(made._inputs[0] is not None)
                raise RuntimeError("it failed")

        made._requests = [Request(), Request()]
    assert ended == [True, True]


def test_a_caller_that_waits_for_each_result_has_one_request(monkeypatch):
    monkeypatch.setattr("ipucnn.plugins.backends._calls._SIDE", SIZE)
    plan = ExecutionPlan(micro_batch=16, precision="32.32")
    with OpenVinoBackend().inference(model_of(SMALL), plan, SIZE) as made:
        made.compile()
        assert made.samples_per_call < 16
        assert made.in_flight == made.facts["requests"] == made.facts["streams"] == 1


SIGNAL_AFTER_USE = """
import os, signal, threading, torch
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.plugins.backends.openvino.engine import OpenVinoBackend

class Small(torch.nn.Module):
    def forward(self, images):
        return images.mean((2, 3))

used = [OpenVinoBackend().inference(Small(), ExecutionPlan(precision="32.32"), 8)]
used[0].compile()
used[0].close()
ends = threading.Thread(target=used.clear)  # as where garbage is collected by chance
ends.start()
ends.join()
signal.signal(signal.SIGUSR1, lambda *_: print("answered", flush=True))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_answered_after_use():
    done = subprocess.run([sys.executable, "-c", SIGNAL_AFTER_USE], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "answered\n"), done.stderr


def test_the_next_process_finds_the_compiled_model(tmp_path):
    cache = tmp_path / "deep" / "cache"
    found = []
    for _ in range(2):
        _command("--precision", "full", "--data", "synthetic", "--iterations", "1",
                 "--model-cache-path", str(cache))
        found.append(os.listdir(str(cache)))
    assert found[0]
    assert found[0] == found[1]


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(IpucnnError, match="cannot make the folder"):
        run_with(backend="openvino", data="synthetic", iterations=1,
                 model_cache_path=str(tmp_path / "file"))


def test_compile_only_fills_the_cache(tmp_path):
    result = run_with(backend="openvino", data="synthetic", compile_only=True,
                    model_cache_path=str(tmp_path / "cache"))
    assert result.iterations == 0
    assert os.listdir(str(tmp_path / "cache"))


class _Refusing:
    """OpenVINO's core, which refuses everything with a message of its."""

    def __init__(self, error: Exception) -> None:
        self.available_devices = ["CPU"]
        self._error = error

    def get_property(self, *_: object) -> list:
        return ["FP32"]

    def read_model(self, *_: object) -> None:
        raise self._error


@pytest.mark.parametrize(("error", "message"), [
    (RuntimeError("Exception from core.cpp:1:\nCheck 'x' failed\n"
                  "-- No conversion rule found for operations: Odd-17\nTo facilitate ...\n"),
     "OpenVINO refuses the network: No conversion rule found for operations: Odd-17"),
    (RuntimeError("Exception from allocator.cpp:79:\nstd::bad_alloc\n"),
     "OpenVINO is out of memory at a micro-batch of 1"),
    (MemoryError(), "OpenVINO is out of memory at a micro-batch of 1")])
def test_what_the_engine_refuses(monkeypatch, error, message):
    monkeypatch.setattr(engine, "_core", lambda: _Refusing(error))
    with OpenVinoBackend().inference(
            model_of(SMALL), ExecutionPlan(precision="32.32"), SIZE) as made, \
            pytest.raises(IpucnnError) as caught:
        made.compile()
    assert caught.value.message == message
    assert caught.value.hint


# -- 8-bit integers ------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """JPEG files of the eight classes of shapes."""
    out = tmp_path_factory.mktemp("shapes") / "images"
    write_made("shapes", str(out), GeneratedFiles(per_class=8, size=SIZE))
    return out


def _quantised(**options):
    return run_with(**{"backend": "openvino", "precision": "int8", "data": "image_folder",
                       "batch_size": 4, **options})


def test_a_quantised_network_is_stored(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path))
    options = {"data_dir": str(folder), "calibration_samples": 12}
    first = _quantised(**options)
    stored = list((tmp_path / "quantised").iterdir())
    assert len(stored) == 1
    made = []
    quantise = session.quantise
    monkeypatch.setattr(session, "quantise", lambda *args: made.append(1) or quantise(*args))
    again = _quantised(**options, batch_size=3)
    assert not made
    assert again.session["quantisation"] == first.session["quantisation"]
    assert [answer["class"] for answer in again.answers] == [
        answer["class"] for answer in first.answers]
    cache = QuantisedCache(KeptFolder("quantised", stored[0].name, "model.xml"))
    core = openvino.Core()
    assert cache.read(core)[0] is not None
    logits = (stored[0] / "logits.npz").read_bytes()
    for damaged in (b"", logits[:100], logits[:-30]):
        (stored[0] / "logits.npz").write_bytes(damaged)
        assert cache.read(core) == (None, None)
    (stored[0] / "model.xml").write_text("<net")  # damaged
    assert _quantised(**options).session["quantisation"] == first.session["quantisation"]
    assert made == [1]
    _quantised(**options, seed=1)  # other images, and other random weights
    assert made == [1, 1]
    assert len(list((tmp_path / "quantised").iterdir())) == 2


def test_the_effect_of_quantising_is_reported(folder):
    state, loggers = random.getstate(), logging.getLoggerClass()
    result = _quantised(data_dir=str(folder), calibration_samples=40)
    assert (random.getstate(), logging.getLoggerClass()) == (state, loggers)
    quantisation = result.session["quantisation"]
    assert quantisation["calibration_images"] == 40
    assert (quantisation["compared_images"], quantisation["held_out"]) == (24, True)
    assert quantisation["agreement"] >= 75
    assert quantisation["top1_difference"] == pytest.approx(
        quantisation["top1_int8"] - quantisation["top1_full"])
    assert result.session["weights_type"] == result.session["arithmetic"] == "int8"
    offered = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert result.session["arithmetic_of_other_layers"] == ("bfloat16" if offered else "float32")
    assert result.images == 64
    assert result.as_dict()["session"]["quantisation"] == quantisation
    assert "with 40 images; same class as full precision for" in render.facts(result.facts())
    # and NNCF has left everything as it was
    assert not logging.getLogger("nncf").disabled
    assert "NNCF_CI" not in os.environ


def test_8_bit_logits_are_near_those_of_torch_and_the_same_each_time():
    images = images_of(20)
    expected = logits_of_torch(model_of(SMALL), images)
    plan = ExecutionPlan(micro_batch=4, device_iterations=2, precision="int8")
    found = []
    for _ in range(2):
        with OpenVinoBackend().quantised(
                model_of(SMALL), plan, SIZE,
                CalibrationImages(images, [None] * 20, 20)) as made:
            made.compile()
            found.append(torch.cat([made(part) for part in
                                    torch.split(images, made.samples_per_call)]))
            result = made.facts["quantisation"]
    assert torch.equal(found[0], found[1])
    assert 1e-4 < difference(found[0], expected) < 0.1
    assert result["agreement"] == 100 * float((found[0].argmax(1) == expected.argmax(1))
                                            .double().mean())
    assert "top1_full" not in result
    assert not result["held_out"]


@pytest.mark.parametrize("how", [{"batch_size": 3}, {"dynamic_batch": True}])
def test_a_file_is_quantised(tmp_path, folder, how):
    path = exported_file(tmp_path, **how)
    result = run_file(path, backend="openvino", precision="int8", data="image_folder",
                    data_dir=str(folder), batch_size=3, calibration_samples=10)
    assert result.session["quantisation"]["calibration_images"] == 10
    assert result.session["quantisation"]["agreement"] >= 75


def test_images_of_another_folder_are_calibrated_with(tmp_path, folder):
    Image.open(str(next(folder.rglob("*.jpg")))).save(str(tmp_path / "one.jpg"))
    result = _quantised(data="real", data_dir=str(tmp_path), calibration_dir=str(folder))
    assert result.images == 1
    assert result.session["quantisation"]["calibration_images"] == 52
    assert result.session["quantisation"]["compared_images"] == 12


def test_calibration_needs_no_labels(tmp_path, folder):
    for number, file in enumerate(sorted(folder.rglob("*.jpg"))[:12]):
        shutil.copy(str(file), str(tmp_path / f"{number}.jpg"))
    result = _quantised(data_dir=str(folder), calibration_dir=str(tmp_path))
    assert result.session["quantisation"]["calibration_images"] == 12
    assert any("are used without labels" in note for note in result.notes)


def test_random_images_calibrate_with_a_warning():
    result = _quantised(data="generated", iterations=2, calibration_samples=10)
    assert any("their predictions are meaningless" in note for note in result.notes)
    assert result.session["quantisation"]["compared_images"] == 10


def test_too_few_images(tmp_path, folder):
    shutil.copy(str(next(folder.rglob("*.jpg"))), str(tmp_path / "one.jpg"))
    with pytest.raises(DataError, match="1 images are too few to calibrate with") as caught:
        _quantised(data="real", data_dir=str(tmp_path))
    assert "--calibration-dir" in caught.value.hint


def test_no_images_or_no_folder(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(IpucnnError, match=name) as caught:
            _quantised(data="real", data_dir=str(folder),
                       calibration_dir=str(tmp_path / name))
        assert caught.value.hint


def test_an_image_that_cannot_be_read(tmp_path, folder):
    shutil.copytree(str(folder), str(tmp_path / "images"))
    (tmp_path / "images" / "bad.jpg").write_bytes(b"not a JPEG")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        _quantised(data="real", data_dir=str(folder), calibration_dir=str(tmp_path / "images"))


def test_images_that_never_exist_on_the_host_are_refused():
    with pytest.raises(UsageError, match="'synthetic' has no images to calibrate") as caught:
        _quantised(data="synthetic")
    assert "generated" in caught.value.hint


@pytest.mark.parametrize("option", [{"calibration_samples": 300}, {"calibration_dir": "x"}])
def test_calibration_without_8_bit_integers_is_refused(option):
    flag = "--" + next(iter(option)).replace("_", "-")
    with pytest.raises(UsageError, match=f"'{flag}' is for 8-bit integers"):
        run_with(backend="openvino", data="generated", **option)


def test_a_folder_for_data_that_reads_none_is_refused(folder):
    with pytest.raises(UsageError, match=r"--calibration-dir.*reads no folder"):
        _quantised(data="shapes", calibration_dir=str(folder))


def test_other_backends_name_those_with_8_bit_integers():
    with pytest.raises(UsageError, match="'torch' does not compute in precision 'int8'"
                       ) as raised:
        run_with(backend="torch", precision="int8", data="generated")
    assert "backends that can: openvino" in raised.value.hint


def test_without_nncf(monkeypatch):
    found = engine.importlib.util.find_spec
    monkeypatch.setattr(engine.importlib.util, "find_spec",
                        lambda name: None if name == "nncf" else found(name))
    with pytest.raises(UnavailableError, match="8-bit integers need NNCF") as caught:
        _quantised(data="generated")
    assert "pip install 'ipucnn[openvino]'" in caught.value.hint


def test_nncf_keeps_quiet(folder):
    done = _command("--precision", "int8", "--data", "image_folder", "--data-dir", str(folder),
                    "--calibration-samples", "10")
    assert json.loads(done.stdout)["session"]["quantisation"]["calibration_images"] == 10
    assert done.stderr == b""


def test_importing_the_engine_sends_no_telemetry(tmp_path):
    pytest.importorskip("openvino_telemetry")
    variables = {name: value for name, value in os.environ.items()
                 if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    done = subprocess.run(
        [sys.executable, "-c", "import os\n"
         "from openvino_telemetry.main import TelemetrySender\n"
         "sent = []\n"
         "TelemetrySender.send = lambda _, backend, message: sent.append(message)\n"
         "import ipucnn.plugins.backends.openvino.engine\n"
         "print(len(sent), os.environ.get('CI'))\n"],
        env={**variables, "HOME": str(tmp_path)}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "None"]
