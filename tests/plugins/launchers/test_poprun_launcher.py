"""The `poprun` launcher: PopDist's variables, and the command that starts the processes.

`tests/commands/test_poprun.py` starts real processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.launcher import Launch
from ipucnn.core.execution.launching import launched
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.plugins.launchers.poprun import PopRunLauncher, ipucnn_launchers

DOUBLES = Path(__file__).resolve().parents[2] / "doubles"
CONTRACT = json.loads((DOUBLES / "contracts" / "popdist-3.3.json").read_text())


def poprun(total=8, local=4, offset=4):
    return {"POPDIST_NUM_TOTAL_REPLICAS": str(total), "POPDIST_NUM_LOCAL_REPLICAS": str(local),
            "POPDIST_REPLICA_INDEX_OFFSET": str(offset)}


@pytest.fixture
def popdist(monkeypatch):
    """The double of PopDist, in a process whose replicas have two IPUs each."""
    monkeypatch.syspath_prepend(str(DOUBLES))
    monkeypatch.setenv("POPDIST_NUM_IPUS_PER_REPLICA", "2")
    yield
    sys.modules.pop("popdist", None)


def test_the_environment_describes_the_instance():
    assert launched({}) is None
    assert launched(poprun()) == Launch(index=1, count=2, replicas=8, launcher="poprun")
    assert launched(poprun(1, 1, 0)) == Launch(0, 1, 1, "poprun")


@pytest.mark.parametrize("variables", [
    poprun(total="many"), poprun(total=0), poprun(local=3), poprun(offset=-1)])
def test_a_broken_environment_is_an_error(variables):
    with pytest.raises(UsageError, match=r"POPDIST|poprun gave") as caught:
        launched(variables)
    assert caught.value.hint


def test_its_variables_are_those_of_the_contract():
    (record,) = ipucnn_launchers()
    assert {*record.variables, *PopRunLauncher().environment(0, 2)} <= set(CONTRACT["env"])


JOIN = """
import sys
from ipucnn.core.execution.instances import ALONE
from ipucnn.core.execution.launching import joined
assert joined() is ALONE
assert "popdist" in sys.modules
assert "horovod" not in sys.modules
"""


def test_one_instance_joins_without_horovod(tmp_path):
    subprocess.run(
        [sys.executable, "-c", JOIN], check=True, timeout=120,
        env={**os.environ, **poprun(2, 2, 0), "POPDIST_DOUBLE_STORE": str(tmp_path / "store"),
             "PYTHONPATH": str(DOUBLES)})


def test_stages_must_be_the_ipus_of_a_replica(popdist):
    launcher = PopRunLauncher()
    launcher.check(ExecutionPlan(replicas=2, pipeline_splits=("1",), device_iterations=2))
    with pytest.raises(UsageError, match="each replica 2 IPUs, and the model has 1 pipeline") as e:
        launcher.check(ExecutionPlan(replicas=2))
    assert "--ipus-per-replica 1" in e.value.hint


def test_what_is_missing_is_named():
    with pytest.raises(UnavailableError, match="'popdist' cannot be imported") as caught:
        PopRunLauncher().join()
    assert "popdist wheel" in caught.value.hint


def test_the_command_of_a_plan():
    plan = ExecutionPlan(replicas=4, instances=2, pipeline_splits=("1",), device_iterations=2)
    launcher = PopRunLauncher()
    assert launcher.command(plan, (), {}) == [
        "poprun", "--num-instances=2", "--num-replicas=4", "--ipus-per-replica=2"]
    assert launcher.command(plan, ("a", "b"), {"--numa-aware": True, "--num-ilds": 2})[4:] == [
        "--host=a,b", "--numa-aware=yes", "--num-ilds=2"]
