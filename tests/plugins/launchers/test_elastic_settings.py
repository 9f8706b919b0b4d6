"""The settings with which `--launcher torchrun` starts torch's elastic agent."""

from __future__ import annotations

import socket
from dataclasses import fields

import pytest

from ipucnn.plugins.launchers import _elastic
from ipucnn.plugins.launchers._torchrun_options import TorchRunOptions


@pytest.fixture
def config(monkeypatch):
    """The configuration of the agent on one host."""
    found = []

    class Launched:
        def __init__(self, config, entrypoint):
            found.append(config)

        def __call__(self, *arguments):
            return {}

    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", Launched)
    assert _elastic.start(["true"], TorchRunOptions(nproc=2)) == 0
    return found[0]


def test_one_host_does_not_need_its_name(config):
    assert config.local_addr == "localhost"


def test_processes_have_time_to_save_after_a_signal(config):
    if "shutdown_timeout" not in {item.name for item in fields(config)}:
        pytest.skip("before torch 2.12, the agent waits 30 seconds")
    assert config.shutdown_timeout == 600


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_the_endpoint_may_be_an_address(host):
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    address = host.strip("[]")
    try:
        with socket.socket(family) as free:
            free.bind((address, 0))
            port = free.getsockname()[1]
    except OSError as error:
        pytest.skip(f"this machine has no address {address}: {error}")
    assert _elastic._place(f"{host}:{port}") == {"local_addr": address, "configs": {}}
