"""The ncnn backend."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections import deque
from concurrent.futures import CancelledError
from pathlib import Path

import numpy
import pytest
import torch
from engine_checks import (
    FAMILIES,
    SIZE,
    SMALL,
    EngineChecks,
    difference,
    exported_file,
    images_of,
    logits_of_torch,
    model_of,
    rows_of,
    run_file,
    run_with,
)
from PIL import Image

from ipucnn.core.errors import IpucnnError, UnavailableError, UnsupportedNetworkError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.onnx.network import read_network
from ipucnn.plugins.backends import _calls
from ipucnn.plugins.backends.ncnn.options import NcnnOptions

ncnn = pytest.importorskip("ncnn")
engine, inference, stored_network = (
    pytest.importorskip(f"ipucnn.plugins.backends.ncnn.{name}")
    for name in ("engine", "inference", "stored_network"))
NcnnBackend = engine.NcnnBackend
FULL = ExecutionPlan(micro_batch=2, precision="32.32")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IPUCNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class TestNcnn(EngineChecks):
    backend, name = NcnnBackend, "ncnn"
    # it has no half precision
    test_half_precision_is_described = test_a_file_in_half_precision = None

    @pytest.mark.parametrize("name", [*FAMILIES, "resnet20-cifar"])
    def test_gives_the_logits_of_torch(self, name):
        images = images_of(3)
        logits = self.classify(model_of(name), FULL, images)
        assert 0 < difference(logits, logits_of_torch(model_of(name), images)) < 1e-4


def test_half_precision_is_refused():
    with pytest.raises(UsageError, match="'ncnn'"):
        run_with(backend="ncnn", data="synthetic", precision="half")


def test_auto_does_not_select_it_without_a_measurement():
    assert run_with(data="synthetic", iterations=1).backend != "ncnn"


@pytest.mark.parametrize(("version", "count", "counts"), [
    ("1.0.20261020", 2, [2, 1]), ("1.0.20261020", 1, [1]), ("1.0.20260526", 4, [1])])
def test_one_image_per_thread_and_one_at_a_time_are_measured(monkeypatch, threads, version, count,
                                                             counts):
    threads(count)
    monkeypatch.setattr(ncnn, "__version__", version)
    found = NcnnBackend().variants(FULL)
    assert found == [{"requests": count} for count in counts]
    assert bool(NcnnBackend().probe().notes) == (version == "1.0.20260526")


@pytest.mark.parametrize(("version", "requests", "batch", "each"), [
    ("1.0.20261020", None, 16, 1), ("1.0.20261020", None, 1, 4), ("1.0.20261020", 2, 16, 2),
    ("1.0.20261020", 9, 16, 1), ("1.0.20240102", None, 16, 4), ("1.0.20240102", 2, 16, 4)])
def test_images_in_flight_share_the_threads(monkeypatch, threads, version, requests, batch, each):
    threads(4)
    monkeypatch.setattr(ncnn, "__version__", version)
    plan = ExecutionPlan(micro_batch=batch, precision="32.32")
    with NcnnBackend(NcnnOptions(requests=requests)).inference(model_of(SMALL), plan,
                                                               SIZE) as session:
        assert session.facts["threads_per_image"] == each


@pytest.mark.parametrize("requests", [1, 2, 5])
def test_images_in_flight_give_the_same_logits_in_order(monkeypatch, threads, requests):
    threads(2)
    batches = images_of(13).split(2)
    expected = [logits_of_torch(model_of(SMALL), batch) for batch in batches]
    with NcnnBackend(NcnnOptions(requests=requests)).inference(model_of(SMALL), FULL,
                                                               SIZE) as session:
        session.compile()
        assert session.in_flight == {1: 1, 2: 2, 5: 2}[requests]
        started, found = deque(), []
        for batch in batches:
            if len(started) == session.in_flight:
                found.append(started.popleft()())
            started.append(session.start(batch.numpy()))
        found += [result() for result in started]
    for logits, wanted in zip(found, expected):
        assert difference(torch.from_numpy(logits), wanted) < 1e-4


def test_images_that_have_not_started_are_cancelled(monkeypatch, threads):
    threads(2)
    session = NcnnBackend(NcnnOptions(requests=2)).inference(
        model_of(SMALL), ExecutionPlan(micro_batch=256, precision="32.32"), SIZE)
    with session:
        session.compile()
        running, computed = threading.Event(), session._logits

        def slow(image):
            running.set()
            time.sleep(0.05)
            return computed(image)

        monkeypatch.setattr(session, "_logits", slow)
        result = session.start(images_of(256).numpy())
        assert running.wait(10)
        begin = time.perf_counter()
    assert time.perf_counter() - begin < 2  # all of them would take 6 seconds
    with pytest.raises((CancelledError, IpucnnError)):
        result()


def test_an_image_of_another_shape_is_an_error_where_its_result_is_read(monkeypatch, threads):
    threads(2)
    with NcnnBackend(NcnnOptions(requests=2)).inference(model_of(SMALL), FULL, SIZE) as session:
        session.compile()
        result = session.start(numpy.zeros((1, 5, SIZE, SIZE), numpy.uint8))
        with pytest.raises(IpucnnError, match="refuses images of shape"):
            result()


def test_a_large_micro_batch_is_computed_in_calls_of_a_few_images(monkeypatch, threads):
    """`--tune` has no time to measure calls of seconds."""
    threads(2)
    monkeypatch.setattr(_calls, "_SIDE", SIZE)
    plan = ExecutionPlan(micro_batch=64, precision="32.32")
    with NcnnBackend().inference(model_of(SMALL), plan, SIZE) as session:
        session.compile()
        assert session.samples_per_call == session.facts["images_per_call"] == 4
        images = images_of(4)
        found = session.start(images.numpy())()
    assert difference(torch.from_numpy(found), logits_of_torch(model_of(SMALL), images)) < 1e-4


def test_each_thread_computes_its_images_in_memory_of_its_own(monkeypatch, threads):
    """Memory that another thread has used is in the caches of the other thread's core."""
    used = {"blob": {}, "workspace": {}}
    for name, of_threads in used.items():
        set_allocator = getattr(ncnn.Extractor, f"set_{name}_allocator")

        def recorded(extractor, allocator, *, set_allocator=set_allocator, of_threads=of_threads):
            of_threads.setdefault(threading.get_ident(), set()).add(allocator)
            set_allocator(extractor, allocator)

        monkeypatch.setattr(ncnn.Extractor, f"set_{name}_allocator", recorded)
    threads(2)
    with NcnnBackend(NcnnOptions(requests=2)).inference(
            model_of(SMALL), ExecutionPlan(micro_batch=64, precision="32.32"), SIZE) as session:
        session.compile()
        session.start(images_of(64).numpy())()
    for of_threads in used.values():
        assert len(of_threads) > 1
        assert all(len(allocators) == 1 for allocators in of_threads.values())
        assert len(set().union(*of_threads.values())) == len(of_threads)


@pytest.mark.parametrize(("code", "words"), [(-100, "out of memory"), (-1, "code -1")])
def test_codes_of_the_engine_are_errors(monkeypatch, code, words):
    class Extractor:
        input = staticmethod(lambda *_: 0)
        extract = staticmethod(lambda *_: (code, ncnn.Mat()))
        set_blob_allocator = set_workspace_allocator = staticmethod(lambda *_: None)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(inference, "load", lambda *_: None)
    monkeypatch.setattr(ncnn.Net, "create_extractor", lambda _: Extractor())
    with NcnnBackend().inference(model_of(SMALL), FULL, SIZE) as session, \
            pytest.raises(IpucnnError, match=words) as caught:
        session.compile()
    assert caught.value.hint


@pytest.mark.parametrize("device", ["cuda", "cpu:1"])
def test_it_has_only_a_cpu(device):
    with pytest.raises(UnavailableError, match=f"the ncnn backend has no device '{device}'"):
        run_with(backend="ncnn", data="synthetic", device=device)
    with pytest.raises(UsageError, match="no device"):
        NcnnBackend(NcnnOptions(device=device)).inference(model_of(SMALL), FULL, SIZE)
    assert run_with(backend="ncnn", data="synthetic", iterations=1, device="cpu").images


def photographs(folder):
    folder.mkdir()
    for number, size in enumerate([(70, 64), (64, 90), (80, 80)]):
        pixels = numpy.random.default_rng(number).integers(0, 256, (*size, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(str(folder / f"{number}.png"))
    return str(folder)


def test_photographs_in_several_requests_have_the_classes_of_torch(tmp_path):
    photos = photographs(tmp_path / "photos")
    for name, more in (("torch", {}), ("ncnn", {"requests": 2})):
        done = run_with(backend=name, data="real", data_dir=photos, num_classes=6,
                        predictions=str(tmp_path / f"{name}.csv"), **more)
        assert (done.backend, done.images) == (name, 3)
    assert done.session["requests"] == 2
    ours, theirs = rows_of(tmp_path / "ncnn.csv"), rows_of(tmp_path / "torch.csv")
    for row, other in zip(ours, theirs):
        assert row["class_1"] == other["class_1"]
        assert float(row["probability_1"]) == pytest.approx(float(other["probability_1"]), abs=1e-4)


def stored(cache):
    (folder,) = (cache / "ncnn").iterdir()
    return {name: folder / f"network.{name}" for name in ("json", "param", "bin")}


def session_of_file(path):
    return NcnnBackend().inference(
        read_network(Path(path)), ExecutionPlan(micro_batch=1, precision="32.32"), SIZE)


def test_damaged_stored_networks_are_made_again(tmp_path, cache, capfd):
    path = exported_file(tmp_path, dynamic_batch=True)
    argv = {"backend": "ncnn", "batch_size": 1}
    run_file(path, predictions=str(tmp_path / "a.csv"), **argv)
    whole = {name: file.read_bytes() for name, file in stored(cache).items()}
    damaged = [("bin", whole["bin"][:-4]), ("bin", b""), ("json", b"{}"), ("json", b"\xff"),
               ("json", None), ("param", whole["param"].replace(b"Convolution", b"Nonsense")),
               ("param", b"7767517\n99999999 99999999\n"), ("bin", None)]
    for name, content in damaged:
        stored(cache)[name].unlink()
        if content is not None:
            stored(cache)[name].write_bytes(content)
        run_file(path, predictions=str(tmp_path / "b.csv"), **argv)
        assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()
        assert {name: file.read_bytes() for name, file in stored(cache).items()} == whole
    assert not capfd.readouterr().err


def test_convolutions_have_the_shape_that_selects_the_size_of_tiles(tmp_path, cache):
    run_file(exported_file(tmp_path, dynamic_batch=True), backend="ncnn", batch_size=1)
    layers = [line for line in stored(cache)["param"].read_text().splitlines()
              if line.startswith("Convolution ")]
    outputs = [[re.search(rf" {name}=(\S+)", line).group(1) for name in ("-23330", "0")]
               for line in layers]
    for shape, channels in outputs:
        dimensions, width, height, depth = shape.split(",")[1:]
        assert (dimensions, depth, width) == ("3", channels, height)
    assert {shape.split(",")[2] for shape, _ in outputs} >= {str(SIZE // 2)}


def test_a_stored_network_that_ncnn_cannot_load_is_made_again(tmp_path, cache, monkeypatch):
    path = exported_file(tmp_path, dynamic_batch=True)
    with session_of_file(path) as session:
        session.compile()
    codes = iter([-1, 0])
    monkeypatch.setattr(ncnn.Net, "load_model", lambda *_: next(codes))
    session = session_of_file(path)
    session.warm_up = False
    with session:
        session.compile()
    assert not list(codes)  # the network was written and loaded again
    monkeypatch.setattr(ncnn.Net, "load_model", lambda *_: -1)
    with session_of_file(path) as session, pytest.raises(IpucnnError, match="cannot load"):
        session.compile()


def test_a_full_disk(tmp_path, cache, monkeypatch):
    path = exported_file(tmp_path, dynamic_batch=True)
    written, full = stored_network.write_weights, [True]

    def failing(layers, file):
        if full.pop(0):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written(layers, file)

    monkeypatch.setattr(stored_network, "write_weights", failing)
    full[:] = [True, False]  # the network is then in a temporary folder
    with session_of_file(path) as session:
        session.compile()
        assert session(images_of(1)).shape == (1, 8)
    full[:] = [True, True]
    with session_of_file(path) as session, \
            pytest.raises(IpucnnError, match="cannot be written for ncnn: No space") as caught:
        session.compile()
    assert "TMPDIR" in caught.value.hint


def test_a_network_with_other_operators_is_refused_with_their_names():
    class Odd(torch.nn.Module):
        def forward(self, images):
            return torch.erf(images.float().mean((2, 3)))

    with NcnnBackend().inference(Odd(), FULL, 8) as session, \
            pytest.raises(UnsupportedNetworkError, match="not translated: Erf"):
        session.compile()
