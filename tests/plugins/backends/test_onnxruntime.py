"""The onnxruntime backend."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from concurrent.futures import CancelledError

import numpy
import onnxruntime
import pytest
import torch
from engine_checks import (
    SIZE,
    TOLERANCE,
    EngineChecks,
    difference,
    images_of,
    logits_of_torch,
    model_of,
)

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.plugins.backends.onnxruntime import devices
from ipucnn.plugins.backends.onnxruntime.engine import OnnxRuntimeBackend
from ipucnn.plugins.backends.onnxruntime.options import OnnxRuntimeOptions


class TestOnnxRuntime(EngineChecks):
    backend, name = OnnxRuntimeBackend, "onnxruntime"


def test_probe_names_half_precision_on_a_cpu():
    probe = OnnxRuntimeBackend().probe_for(ExecutionPlan())
    assert (probe.usable, probe.half) == (True, "bfloat16")
    assert "computes in float32" in probe.notes[0]
    assert OnnxRuntimeBackend().probe_for(ExecutionPlan(precision="32.32")).notes == ()
    assert probe.versions == {"onnxruntime": onnxruntime.__version__}


def test_padding_counts_in_average_pools():
    model = torch.nn.Sequential(torch.nn.AvgPool2d(3, 1, 1), torch.nn.Conv2d(3, 4, SIZE),
                                torch.nn.Flatten()).eval()
    images = images_of(2)
    plan = ExecutionPlan(precision="32.32", normalisation="none", micro_batch=2)
    with OnnxRuntimeBackend().inference(model, plan, SIZE) as session:
        session.compile()
        found = session(images)
    torch.testing.assert_close(found, model(images.float()).detach(), rtol=1e-4, atol=1e-3)


@pytest.fixture
def listed(monkeypatch):
    """A build for CUDA, which lists the provider whether there is a card or not."""
    monkeypatch.setattr(onnxruntime, "get_available_providers",
                        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    forget = devices.starts.cache_clear
    forget()
    yield
    forget()


def test_cuda_is_taken_where_it_is(listed, monkeypatch):
    monkeypatch.setattr(devices, "starts", lambda *_: True)
    probe = OnnxRuntimeBackend().probe()
    # of its record's rank, which is that of its best device
    assert (probe.device, probe.half, probe.preference) == ("CUDA device 0", "float16", None)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_listed_provider_without_a_card_is_not_taken(listed, capfd):
    assert OnnxRuntimeBackend().probe().device.startswith("CPU")
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("failure", [None, OSError("damaged")])
def test_libraries_of_cuda_that_pip_has_installed_are_loaded(listed, monkeypatch, capfd, failure):
    loaded = []

    def load():
        loaded.append("cuda")
        print("Failed to load libcublas.so.12")
        if failure:
            raise failure

    monkeypatch.setattr(onnxruntime, "preload_dlls", load, raising=False)
    OnnxRuntimeBackend(OnnxRuntimeOptions(device="cpu")).probe()
    assert loaded == []
    OnnxRuntimeBackend().probe()
    assert loaded == ["cuda"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_cannot_start_is_no_reason_to_compute_elsewhere(listed):
    backend = OnnxRuntimeBackend(OnnxRuntimeOptions(device="cuda"))
    assert not backend.probe().usable
    with pytest.raises(IpucnnError, match="cannot use device 'cuda'"):
        backend.inference(model_of("resnet18"), ExecutionPlan(precision="32.32"), SIZE)


@pytest.mark.parametrize(("precision", "allowed"), [("32.32", 0), ("16.16", 1)])
def test_single_precision_is_exact_on_cuda(listed, monkeypatch, precision, allowed):
    given = {}

    def made(_graph, _options, providers):
        given.update(dict(providers[0][1]))
        raise IpucnnError("enough")

    monkeypatch.setattr(devices, "starts", lambda *_: True)
    monkeypatch.setattr(onnxruntime, "InferenceSession", made)
    backend = OnnxRuntimeBackend(OnnxRuntimeOptions(device="cuda:1"))
    with backend.inference(model_of("resnet18"), ExecutionPlan(precision=precision),
                           SIZE) as session, pytest.raises(IpucnnError, match="enough"):
        session.compile()
    assert given == {"device_id": 1, "use_tf32": allowed}


@pytest.mark.parametrize(("values", "flag"), [
    ({"requests": 2}, "--requests"), ({"threads": 2}, "--threads"),
    ({"spinning": True}, "--spinning"), ({"spinning": False}, "--no-spinning")])
def test_options_of_threads_are_refused_on_cuda(listed, monkeypatch, values, flag):
    monkeypatch.setattr(devices, "starts", lambda *_: True)
    backend = OnnxRuntimeBackend(OnnxRuntimeOptions(device="cuda", **values))
    with pytest.raises(UsageError, match=f"'{flag}' is for the threads of a CPU"):
        backend.inference(model_of("resnet18"), ExecutionPlan(precision="32.32"), SIZE)


@pytest.mark.parametrize(("count", "expected"), [
    (1, [(4, 1, True), (1, 1, True), (16, 1, True)]),
    (2, [(4, 4, True), (1, 4, True), (16, 4, True)]),
    (5, [(8, 10, True), (2, 10, True), (16, 10, True), (8, 1, True), (2, 1, True), (16, 1, True),
         (8, 1, False)])])
def test_calls_in_flight_and_spinning_are_measured(threads, count, expected):
    threads(count)
    found = OnnxRuntimeBackend().variants(ExecutionPlan(micro_batch=16))
    assert [(one["images_per_call"], one["requests"], one["spinning"]) for one in found] == expected


@pytest.mark.parametrize("requests", [1, 2, 5])
def test_calls_in_flight_give_the_same_logits_in_order(threads, requests):
    threads(2)
    plan = ExecutionPlan(micro_batch=2, precision="32.32")
    batches = images_of(14).split(2)
    backend = OnnxRuntimeBackend(OnnxRuntimeOptions(requests=requests, images_per_call=2))
    expected = [logits_of_torch(model_of("resnet8-cifar"), batch) for batch in batches]
    with backend.inference(model_of("resnet8-cifar"), plan, SIZE) as session:
        session.compile()
        assert session.in_flight == session.facts["requests"] == requests
        started, found = deque(), []
        for batch in batches:
            if len(started) == requests:
                found.append(started.popleft()())
            started.append(session.start(batch.numpy()))
        found += [result() for result in started]
    for logits, wanted in zip(found, expected):
        assert difference(torch.from_numpy(logits), wanted) < TOLERANCE["32.32"]


def test_an_error_of_a_call_in_flight_is_raised_where_its_result_is_read():
    backend = OnnxRuntimeBackend(OnnxRuntimeOptions(requests=2))
    with backend.inference(model_of("resnet8-cifar"), ExecutionPlan(precision="32.32"),
                           SIZE) as session:
        session.compile()
        result = session.start(numpy.zeros((1, 5, SIZE, SIZE), numpy.uint8))
        with pytest.raises(IpucnnError, match="refuses the network"):
            result()


def test_calls_in_flight_end_with_the_session():
    backend = OnnxRuntimeBackend(OnnxRuntimeOptions(requests=32, images_per_call=64))
    plan = ExecutionPlan(micro_batch=64, precision="32.32")
    session = backend.inference(model_of("resnet18"), plan, SIZE)
    with session:
        session.compile()
        images = images_of(64).numpy()
        started = [session.start(images) for _ in range(32)]
    with pytest.raises((IpucnnError, CancelledError)):
        started[-1]()  # the first ones may have been computed


@pytest.mark.parametrize(("raised", "message"), [
    ("bad_alloc while running a node", "out of memory"), ("no kernel", "refuses the network")])
def test_what_the_engine_refuses(monkeypatch, raised, message):
    class Refusal(Exception):
        __module__ = "onnxruntime.capi"

    def refuse(*_: object, **__: object):
        raise Refusal(raised + "\nsecond line")

    with OnnxRuntimeBackend().inference(
            model_of("resnet18"), ExecutionPlan(precision="32.32"), SIZE) as session:
        monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
        with pytest.raises(IpucnnError, match=message) as caught:
            session.compile()
    assert "second line" not in caught.value.message


def test_the_engine_has_no_telemetry(tmp_path):
    # variables of services that run tests disable it as well
    variables = {name: value for name, value in os.environ.items() if name not in (
        "CI", "GITHUB_ACTIONS", "TF_BUILD", "JENKINS_URL", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", "import os\n"
         "from ipucnn.plugins.backends.onnxruntime import devices, engine\n"
         "assert devices.starts('cpu')\n"
         "print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"],
        env={**variables, "HOME": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        universal_newlines=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr
    assert not list(tmp_path.rglob("Microsoft"))
