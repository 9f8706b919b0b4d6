"""Whether the machine is busy, and what waiting threads do then."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ipucnn.core import contention

CPUS = os.cpu_count()


@pytest.fixture(autouse=True)
def whole_machine(monkeypatch):
    monkeypatch.setattr(contention, "usable_cores", lambda _: CPUS)


def machine(tmp_path, runnable, own="R", load=99.0 * CPUS):
    """Return a root with this number of runnable threads, of which one per letter R is own."""
    tasks = tmp_path / "proc" / "self" / "task"
    for number, state in enumerate(own):
        (tasks / str(number)).mkdir(parents=True)
        (tasks / str(number) / "stat").write_text(f"{number} (a) b) {state} 1 1 0\n")
    (tmp_path / "proc" / "stat").write_text(f"cpu  1 2 3\nprocs_running {runnable}\n")
    (tmp_path / "proc" / "loadavg").write_text(f"{load:.2f} 1.00 1.00 9/99 999\n")
    return tmp_path


@pytest.mark.parametrize(("runnable", "own", "busy"), [
    (1, "R", False), (CPUS, "R", False), (1 + CPUS, "R", True), (3 * CPUS, "S", True),
    (1 + CPUS, "RS" + "R" * CPUS, False), (0, "R", False)])
def test_threads_of_other_processes_count(tmp_path, runnable, own, busy):
    assert contention.busy(machine(tmp_path, runnable, own)) is busy


def test_programs_that_have_just_started_do_not_count(tmp_path):
    assert not contention.busy(machine(tmp_path, 3 * CPUS, load=CPUS - 0.5))


def test_a_share_of_the_machine_is_idle(tmp_path, monkeypatch):
    monkeypatch.setattr(contention, "usable_cores", lambda _: CPUS - 1)
    assert not contention.busy(machine(tmp_path, 3 * CPUS))


def test_systems_without_the_number_are_idle(tmp_path):
    assert not contention.busy(tmp_path)
    (machine(tmp_path, 9 * CPUS) / "proc" / "stat").write_text("cpu  1 2 3\n")
    assert not contention.busy(tmp_path)


@pytest.fixture
def two_threads(monkeypatch):
    for name in (*contention._CONFIGURED, "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(contention, "compute_threads", lambda: 2)


@pytest.mark.parametrize(("busy", "policy"), [(True, "passive"), (False, "")])
def test_threads_sleep_on_a_busy_machine(monkeypatch, two_threads, busy, policy):
    monkeypatch.setattr(contention, "busy", lambda: busy)
    contention.sleep_if_busy()
    assert os.environ["OMP_WAIT_POLICY"] == policy


@pytest.mark.parametrize("name", contention._CONFIGURED)
def test_the_environment_of_the_user_has_precedence(monkeypatch, two_threads, name):
    monkeypatch.setattr(contention, "busy", lambda: True)
    monkeypatch.setenv(name, "active")
    contention.sleep_if_busy()
    assert os.environ["OMP_WAIT_POLICY"] == ("active" if name == "OMP_WAIT_POLICY" else "")


def test_a_single_thread_waits_for_no_other(monkeypatch, two_threads):
    monkeypatch.setattr(contention, "busy", lambda: True)
    monkeypatch.setattr(contention, "compute_threads", lambda: 1)
    contention.sleep_if_busy()
    assert not os.environ["OMP_WAIT_POLICY"]


PROGRAM = """
import ctypes, os, threading, time
from ipucnn.core import contention

contention.busy = lambda: {busy}
contention.compute_threads = lambda: 2
contention.sleep_if_busy()

import torch

torch.set_num_threads(2)
ones = torch.ones(1 << 16)
used = 0.0
for _ in range(50):  # the second thread waits between the regions
    ones.add_(1)
    before = time.process_time()
    time.sleep(0.002)
    used += time.process_time() - before
print(used / 0.1)
"""


def test_torch_obeys(tmp_path):
    """The share of a core that torch's idle threads take."""
    clean = {name: value for name, value in os.environ.items()
             if name not in (*contention._CONFIGURED, "OMP_NUM_THREADS")}
    taken = {}
    for busy in (True, False):
        done = subprocess.run([sys.executable, "-c", PROGRAM.format(busy=busy)], env=clean,
                              stdout=subprocess.PIPE, universal_newlines=True, timeout=100)
        taken[busy] = float(done.stdout)
    assert taken[True] < 0.5 * taken[False]
