"""The interface within a program that has set modes and defaults of torch, or that forks."""

from __future__ import annotations

import os
import threading
import time
import warnings
from contextlib import ExitStack, contextmanager

import numpy
import pytest
import torch

import ipucnn
from ipucnn.api.modes import ordinary_modes
from ipucnn.models import weights_file


@contextmanager
def default_type(wanted):
    before = torch.get_default_dtype()
    torch.set_default_dtype(wanted)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def changed_modes():
    with ExitStack() as stack:
        for mode in (torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16),
                     torch.device("meta"), default_type(torch.float64),
                     numpy.errstate(all="raise")):
            stack.enter_context(mode)
        yield


def test_modes_and_defaults_of_the_caller_have_no_effect(training, photos, trained, tmp_path):
    photo = next((photos / "validation" / "ring").iterdir())

    def results(place):
        done = ipucnn.train(**training, data_dir=photos, epoch=1, checkpoint_path=place)
        with ipucnn.load(trained, backend="torch", precision="full") as model:
            found = model.predict(photo)
            size = next(model.module.parameters()).dtype, model.module.training
        ipucnn.export(weights=trained, output=place / "net.onnx", dynamic_batch=True,
                      target="onnxruntime", precision="half")
        (score,) = ipucnn.validate(trained, data_dir=photos, progress=False)
        ipucnn.average(trained, checkpoint_output_path=place / "a.pt", reestimate_batch_norm=8)
        return [row["loss"] for row in done.history], found, size, score.figures()["loss"]

    expected = results(tmp_path / "ordinary")
    with changed_modes():
        before = torch.is_inference_mode_enabled(), torch.get_default_dtype()
        assert results(tmp_path / "changed") == expected
        assert (torch.is_inference_mode_enabled(), torch.get_default_dtype()) == before
        built = ipucnn.create_model("resnet8-cifar", weights="random")
    parameter = next(built.parameters())
    assert (parameter.dtype, parameter.device.type) == (torch.float32, "cpu")
    assert not parameter.is_inference()


def test_autocast_within_the_interface_ends_with_its_own_context():
    """Otherwise a backend that computes with autocast would train with weights of before."""
    weight = torch.ones(2, 2, requires_grad=True)

    def product():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return float((torch.ones(2, 2) @ weight).sum().detach())

    with ordinary_modes():
        assert product() == 8
        with torch.no_grad():
            weight.mul_(2)
        assert product() == 16
    with torch.autocast("cpu", dtype=torch.bfloat16), ordinary_modes():
        assert (torch.ones(2, 2) @ weight).dtype == torch.float32


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_models_are_loaded_in_a_forked_process(trained, photos):
    photo = next((photos / "validation" / "ring").iterdir())
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with ipucnn.load(trained, backend="torch") as loaded:
            torch.rand(1 << 20).add_(1)  # starts threads of OpenMP
            child = os.fork()
            if not child:
                code = 1
                try:
                    with ipucnn.load(trained, backend="torch") as own:
                        code = 0 if own.predict(photo) == loaded.predict(photo) else 2
                finally:
                    os._exit(code)
            until = time.monotonic() + 60
            while not (ended := os.waitpid(child, os.WNOHANG))[0] and time.monotonic() < until:
                time.sleep(0.01)
            if not ended[0]:
                os.kill(child, 9)
                os.waitpid(child, 0)
        assert ended == (child, 0)
    finally:
        torch.set_num_threads(before)


def test_threads_that_read_weights_leave_the_filters_of_warnings(trained, monkeypatch):
    (checkpoint,) = trained.glob("*.pt")
    read, seconds = weights_file._torch, {"first": 0.1, "second": 0.2}

    def slow(*given):
        found = read(*given)
        time.sleep(seconds[threading.current_thread().name])
        return found

    monkeypatch.setattr(weights_file, "_torch", slow)
    with warnings.catch_warnings():
        before = list(warnings.filters)
        threads = [threading.Thread(target=weights_file.read_weights, args=(checkpoint,), name=name)
                   for name in seconds]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        for thread in threads:
            thread.join()
        assert list(warnings.filters) == before
