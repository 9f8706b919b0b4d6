"""`--launcher torchrun`: the elastic agent of torch starts the processes."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ipucnn.__main__ import invoke
from ipucnn.data.formats.sample_data import GeneratedFiles, write_made

TINY = ["--plugin", str(Path(__file__).parents[1] / "tiny_plugin.py")]
MORTAL = """
import os, signal
import ipucnn
from ipucnn.core.execution.losses import Loss

class Mortal(Loss):
    calls = 0

    def __call__(self, logits, labels, mixing, micro_batch):
        Mortal.calls += 1
        if os.environ.get("RANK") == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0" \\
                and Mortal.calls == 20:
            os.kill(os.getpid(), signal.SIGKILL)
        import torch
        return torch.nn.functional.cross_entropy(logits, labels)

@ipucnn.hookimpl
def ipucnn_losses():
    return [ipucnn.LossSpec(name="mortal", summary="ends a process once", target=Mortal)]
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_made("shapes", str(folder), GeneratedFiles(per_class=4, size=20))
    return folder


def words(photos, folder, *more):
    return [*TINY, "train", "--model", "tiny", "--data-dir", photos, "--backend", "torch",
            "--precision", "full", "--batch-size", "4", "--lr", "0.05", "--no-validation",
            "--dataloader-worker", "1", "--progress", "off", "--checkpoint-path", folder, *more]


def started(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "ipucnn", *map(str, arguments)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, **options)


def ended(process, timeout=100):
    with process:
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, out, err


def test_processes_are_restarted_and_continue(photos, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    plugin = tmp_path / "mortal.py"
    plugin.write_text(MORTAL)
    common = ["--plugin", plugin, *words(photos, tmp_path / "saved", "--loss", "mortal", "--epoch",
                                         "6", "--replicas", "2")]
    code, out, err = ended(started(*common, "--launcher", "torchrun", "--nproc", "2",
                                   "--max-restarts", "1"))
    assert code == 0, err
    assert "restoring" in err
    assert "instance 2 does not respond" in err
    assert not [*temporary.glob("torchelastic*"), *temporary.glob("ipucnn*")]
    assert re.search(r"^epochs +6$", out, re.MULTILINE)
    alone = [str(tmp_path / "alone") if word == tmp_path / "saved" else str(word)
             for word in common]
    assert invoke(alone) == 0
    found, expected = (torch.load(next((tmp_path / name).glob("*_6.pt")), weights_only=True)
                       for name in ("saved", "alone"))
    for name, value in expected["model"].items():
        assert torch.allclose(found["model"][name], value, atol=1e-6), name


@pytest.mark.parametrize(("number", "expected"), [
    (signal.SIGINT, 130), (signal.SIGUSR1, 128 + signal.SIGUSR1)])
def test_a_signal_to_all_saves_once_and_a_hangup_is_ignored_with_nohup(photos, tmp_path, number,
                                                                       expected):
    process = started(*words(photos, tmp_path / "saved", "--epoch", "2000", "--launcher",
                             "torchrun", "--nproc", "2"),
                      preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))

    def wait(epoch):
        until = time.monotonic() + 120
        while not list(tmp_path.glob(f"saved/*_{epoch}.pt")) and time.monotonic() < until:
            time.sleep(0.05)

    wait(1)
    last = max(int(path.stem.rpartition("_")[2]) for path in tmp_path.glob("saved/*_*.pt"))
    os.killpg(process.pid, signal.SIGHUP)  # as a terminal that is closed does
    wait(last + 10)
    os.killpg(process.pid, number)  # as Ctrl-C in their terminal does, and a scheduler
    code, out, err = ended(process)
    assert code == expected, err
    assert len(re.findall(rf"^stopped by +{number.name}$", out, re.MULTILINE)) == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(("options", "message", "hint"), [
    (["--nproc", "2"], "'--nproc' is an option of launcher torchrun", "'--launcher torchrun'"),
    (["--launcher", "torchrun", "--nnodes", "2"], "2 hosts have no place", "'--rdzv-endpoint"),
    (["--launcher", "torchrun", "--nnodes", "3:2"], "'3:2' is not a number of hosts", "'2:4'"),
    (["--launcher", "torchrun", "--rdzv-endpoint", "here"], "'here' is not HOST:PORT", "29400"),
    (["--launcher", "torchrun", "--nnodes", "2", "--rdzv-endpoint", "no-such-host.invalid:1"],
     "host 'no-such-host.invalid' of '--rdzv-endpoint' is not known", "one of the hosts"),
    (["--launcher", "local"], "starts no processes by itself", "run --instances N'"),
    (["--launcher", "poprun"], "own program starts the processes", "leave '--launcher' out"),
    (["--launcher", "torchrun", "--nnodes", "2", "--rdzv-endpoint", "127.0.0.1:{port}"],
     "'127.0.0.1:{port}' is in use by another program", "the same on all hosts"),
])
def test_wrong_usage_starts_nothing(photos, tmp_path, capsys, monkeypatch, options, message, hint):
    import socket

    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")  # it is set on a busy machine
    monkeypatch.setattr("ipucnn.plugins.launchers._elastic._ANSWER", 0.5)
    before = dict(os.environ)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        arguments = words(photos, tmp_path / "saved", *(o.format(port=port) for o in options))
        assert invoke(list(map(str, arguments))) == 2
    err = capsys.readouterr().err
    assert message.format(port=port) in err
    assert hint in err
    assert not (tmp_path / "saved").exists()
    assert dict(os.environ) == before
    assert logging.root.manager.disable == logging.NOTSET


def test_an_error_of_all_processes_is_reported_once(photos, tmp_path):
    code, _, err = ended(started(*words(
        photos, tmp_path / "saved", "--launcher", "torchrun", "--nproc", "2", "--replicas", "3")))
    assert code == 2, err
    assert err.count("3 replicas cannot be divided among 2 instances") == 1
    assert not (tmp_path / "saved").exists()


def test_missing_hosts_are_reported(photos, tmp_path):
    from ranks import free_port

    place = f"127.0.0.1:{free_port()}"
    code, _, err = ended(started(*words(
        photos, tmp_path / "saved", "--launcher", "torchrun", "--nnodes", "2", "--rdzv-endpoint",
        place, "--rdzv-timeout", "1")))
    assert code == 2, err
    assert f"the hosts did not find each other at '{place}' within 1 s" in err
    assert "Traceback" not in err
