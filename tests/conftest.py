"""Fixtures of all tests: installed distributions, small CIFAR-10 files, doubles of the SDK."""

from __future__ import annotations

import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ipucnn.testing.fixtures import (  # noqa: F401
    cli,
    fake_distribution,
    isolated_registry,
    tiny_images,
)

CIFAR10 = Path("data", "cifar10", "cifar-10-batches-bin")
DOUBLES = Path(__file__).parent / "doubles"


def pytest_configure(config):
    """Keep what tests store for later runs out of the user's cache; workers share one folder."""
    if "IPUCNN_CACHE" not in os.environ:
        config.own_cache = os.environ["IPUCNN_CACHE"] = tempfile.mkdtemp(prefix="ipucnn-cache-")


def pytest_unconfigure(config):
    """Remove the folder that `pytest_configure` made."""
    if hasattr(config, "own_cache"):
        del os.environ["IPUCNN_CACHE"]
        shutil.rmtree(config.own_cache, ignore_errors=True)


def _forget(sdk):
    """Remove a module of the SDK and what imported it, so that they are imported again."""
    backend = f"ipucnn.plugins.backends.{sdk}."
    for name in list(sys.modules):
        if name.split(".")[0] == sdk or (
                name.startswith(backend)
                and name[len(backend):] not in ("engine", "operators", "options")):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture(autouse=True)
def _no_popart_stays():
    """Remove PopART's double, which is beside PopTorch's: probing all backends imports both."""
    yield
    if "popart" in sys.modules:
        _forget("popart")


@pytest.fixture
def without_poptorch(monkeypatch):
    """Remove PopTorch and its environment variables."""
    for name in ("POPTORCH_IPU_MODEL", "POPTORCH_SMALL_IPU_MODEL", "POPTORCH_DOUBLE_TORCH",
                 "POPTORCH_DOUBLE_IPUS"):
        monkeypatch.delenv(name, raising=False)
    _forget("poptorch")
    yield
    _forget("poptorch")


@pytest.fixture
def poptorch_double(without_poptorch, monkeypatch):
    """Return PopTorch's double; `_machine.MACHINE` is its hardware."""
    monkeypatch.syspath_prepend(str(DOUBLES))
    monkeypatch.setenv("POPTORCH_DOUBLE_TORCH", "any")
    _forget("poptorch")
    return importlib.import_module("poptorch")


@pytest.fixture
def popart_double(monkeypatch):
    """Return PopART's double; `_machine.MACHINE` is its hardware."""
    for name in ("IPUS", "BYTES", "FAILS", "POOL", "LOG", "IMPORT_ORDER"):
        monkeypatch.delenv(f"POPART_DOUBLE_{name}", raising=False)
    monkeypatch.syspath_prepend(str(DOUBLES))
    _forget("popart")
    yield importlib.import_module("popart")
    _forget("popart")


@pytest.fixture
def heeded_sighup():
    """Under `nohup`, processes ignore SIGHUP, and those that they start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def small_cifar10(tmp_path):
    """CIFAR-10's published binary form with 250 images to train on and 50 to validate."""
    chance = random.Random(0)
    folder = tmp_path / CIFAR10
    folder.mkdir(parents=True)
    (folder / "batches.meta.txt").write_text("".join(f"class{i}\n" for i in range(10)))
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        (folder / f"{name}.bin").write_bytes(b"".join(
            bytes([i % 10]) + chance.getrandbits(8 * 3072).to_bytes(3072, "big")
            for i in range(50)))
    return folder


class FileServer:
    """A real HTTP server on localhost. `files` maps paths to bodies; `requests` logs what came.

    A body that is an int is answered as that status. With `cut`, only so many bytes of a body are
    sent although its whole length was announced.
    """

    def __init__(self):
        self.files = {}
        self.requests = []
        self.cut = None
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner.requests.append(self.path)
                body = owner.files.get(self.path.partition("?")[0], 404)
                if isinstance(body, int):
                    self.send_error(body)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[:owner.cut])

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def file_server(monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    server = FileServer()
    yield server
    server.stop()
