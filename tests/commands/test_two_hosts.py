"""Trainings on two hosts, which are network namespaces of this one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ipucnn.data.formats.sample_data import GeneratedFiles, write_made

TINY = ["--plugin", str(Path(__file__).parents[1] / "tiny_plugin.py")]
ENDPOINT = "10.213.77.1:29477"


def ip(*words):
    return subprocess.run(["ip", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          universal_newlines=True)


class Hosts:
    """Two namespaces with a cable between them.

    Raises:
        PermissionError: this process may not make them.
    """

    def __init__(self):
        mark = f"ipucnn{os.getpid()}"
        self.names = [f"{mark}-{number}" for number in (1, 2)]
        for name in self.names:
            made = ip("netns", "add", name)
            if made.returncode:
                self.close()
                raise PermissionError(made.stderr.strip())
        first, second = self.names
        steps = [["link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable",
                  "netns", second]]
        for number, name in enumerate(self.names, 1):
            steps += [["-n", name, "address", "add", f"10.213.77.{number}/24", "dev", "cable"],
                      ["-n", name, "link", "set", "lo", "up"],
                      ["-n", name, "link", "set", "cable", "up"]]
        for step in steps:
            made = ip(*step)
            if made.returncode:
                self.close()
                raise PermissionError(made.stderr.strip())

    def cable(self, state):
        assert not ip("-n", self.names[1], "link", "set", "cable", state).returncode

    def slow(self):
        """Delay what the second host sends; return whether this kernel can."""
        done = subprocess.run(["ip", "netns", "exec", self.names[1], "tc", "qdisc", "add", "dev",
                               "cable", "root", "netem", "delay", "15ms"], stderr=subprocess.PIPE)
        return not done.returncode

    def start(self, number, words):
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[number], sys.executable, "-m", "ipucnn",
             *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            universal_newlines=True, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "cable",
                 "IPUCNN_RANK_TIMEOUT": "10"})

    def close(self):
        for name in self.names:
            ip("netns", "delete", name)


@pytest.fixture
def hosts():
    if shutil.which("ip") is None or not hasattr(os, "geteuid") or os.geteuid():
        pytest.skip("network namespaces need 'ip' and root")
    try:
        made = Hosts()
    except PermissionError as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")
    yield made
    made.close()


def await_epoch(folder, epoch, processes):
    """Wait until a later epoch has a checkpoint, and return its number."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        found = [int(path.stem.rpartition("_")[2]) for path in folder.glob("*.pt")]
        if found and max(found) > epoch:
            return max(found)
        for process in processes:
            assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError(f"no epoch after {epoch}")


@pytest.mark.slow
@pytest.mark.skipif(torch.__version__ < "2.1", reason="the agent of torch 2.0 waits for minutes "
                    "for a host that is cut off, after the error was printed")
def test_a_host_that_is_cut_off_comes_back_or_is_named(hosts, tmp_path):
    write_made("shapes", str(tmp_path / "photos"), GeneratedFiles(per_class=4, size=20))
    saved = tmp_path / "saved"
    words = [*TINY, "train", "--model", "tiny", "--data-dir", tmp_path / "photos", "--backend",
             "torch", "--precision", "full", "--batch-size", "4", "--lr", "0.05",
             "--no-validation", "--dataloader-worker", "1", "--progress", "off", "--epoch",
             "100000", "--checkpoint-path", saved, "--keep-last", "3", "--launcher", "torchrun",
             "--nproc", "1", "--nnodes", "2", "--rdzv-endpoint", ENDPOINT, "--rdzv-timeout", "30"]
    processes = [hosts.start(number, words) for number in (0, 1)]
    try:
        epoch = await_epoch(saved, 0, processes)
        hosts.cable("down")
        time.sleep(1)
        hosts.cable("up")
        epoch = await_epoch(saved, epoch + 2, processes)
        if hosts.slow():
            epoch = await_epoch(saved, epoch + 2, processes)
        hosts.cable("down")
        began = time.monotonic()
        _, err = processes[0].communicate(timeout=100)
        assert processes[0].returncode == 1, err
        assert time.monotonic() - began < 60
        assert "instance 2 does not respond" in err
        assert "Traceback" not in err
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert await_epoch(saved, epoch - 1, []) >= epoch  # whole checkpoints, to continue from
