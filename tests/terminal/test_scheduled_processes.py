"""Processes that a scheduler starts without a launcher do not repeat the work."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.launching import environment_of
from ipucnn.terminal import scheduled_processes
from ipucnn.terminal.scheduled_processes import check_shared

STEP = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0",
        "SLURM_PROCID": "1"}
TORCH = {"RANK": "1", "WORLD_SIZE": "4"}
MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}


@pytest.fixture
def started(monkeypatch):
    """Set the environment of this process, and whether a terminal controls it."""
    def start(variables, terminal=False):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(scheduled_processes, "_has_terminal", lambda: terminal)

    return start


@pytest.mark.parametrize(("variables", "started_by"), [
    (STEP, "srun has started 4 processes"), (MPI, "mpirun has started 2 processes"),
    ({"PMI_SIZE": "3", "PMI_RANK": "2"}, "mpirun has started 3 processes"),
    (TORCH, "RANK and WORLD_SIZE are those of one of 4 processes")])
def test_each_of_several_processes_refuses_to_do_all_of_the_work(started, variables, started_by):
    started(variables)
    with pytest.raises(UsageError, match=started_by) as caught:
        check_shared()
    assert "IPUCNN_LAUNCHER=local" in caught.value.hint


@pytest.mark.parametrize("variables", [
    {**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"},
    {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"},
    {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_ARRAY_TASK_ID": "3"},
    {**STEP, "SLURM_NTASKS": "1"},
    {**MPI, "OMPI_COMM_WORLD_SIZE": "1"}, {"PMI_SIZE": "many"},
    {**TORCH, "WORLD_SIZE": "1"}, {"WORLD_SIZE": "4"}, {**TORCH, "TORCHELASTIC_RUN_ID": "none",
                                                        "LOCAL_RANK": "1"},
    {**STEP, "IPUCNN_LAUNCHER": "local"}, {**MPI, **environment_of("torchrun", 0, 2)},
    {**MPI, **environment_of("poprun", 0, 2)}],
    ids=["srun -n 1", "salloc", "job array", "sbatch in a step", "mpirun -n 1", "not a number",
         "WORLD_SIZE of 1", "no RANK", "connected", "alone", "torchrun", "poprun"])
def test_one_process_and_connected_ones_work(started, variables):
    started(variables)
    check_shared()


def test_the_shell_of_srun_pty_is_one_process(started):
    started({**STEP, "PMI_SIZE": "4"}, terminal=True)
    check_shared()


def test_a_process_has_a_terminal_in_a_shell_only():
    code = "from ipucnn.terminal.scheduled_processes import _has_terminal as t; print(t())"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True,
                          start_new_session=True)
    assert done.stdout == b"False\n"
    child, terminal = pty.fork()
    if not child:
        os.execv(sys.executable, [sys.executable, "-c", code])
    assert os.read(terminal, 100).strip() == b"True"
    os.waitpid(child, 0)
    os.close(terminal)


@pytest.mark.parametrize("command", [
    ["train", "--data", "shapes"], ["restore", "--checkpoint-path", "c"],
    ["validate", "--checkpoint-path", "c"], ["run", "--data", "synthetic"]])
def test_commands_that_compute_refuse_before_any_work(command, tmp_path):
    done = subprocess.run([sys.executable, "-m", "ipucnn", *command], cwd=tmp_path,
                          env={**os.environ, **MPI}, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"mpirun has started 2 processes" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("options", "alone"), [
    (("--nproc", "1"), True), (("--nnodes", "2", "--rdzv-endpoint", "localhost:1"), False)])
def test_a_launcher_of_one_host_is_not_started_several_times(tmp_path, options, alone):
    done = subprocess.run(
        [sys.executable, "-m", "ipucnn", "run", "--data", "synthetic", "--launcher", "torchrun",
         "--rdzv-timeout", "1", *options], cwd=tmp_path, env={**os.environ, **MPI},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert done.returncode == 2
    expected = b"mpirun has started 2 processes of this command, and each would start" if alone \
        else b"the hosts did not find each other"
    assert expected in done.stderr
