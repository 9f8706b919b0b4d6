"""The launcher of a process: how it is recognised, and its effects."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import ipucnn.core
from ipucnn.core.errors import PluginError, UnavailableError, UnknownNameError, UsageError
from ipucnn.core.execution import launching
from ipucnn.core.execution.backend import Backend, Probe
from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.execution.launcher import Launch, Launcher
from ipucnn.core.execution.launching import (
    connect,
    environment_of,
    fitted,
    is_first,
    joined,
    launched,
    launched_count,
    launcher_named,
    own_name,
    select,
)
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import Chosen
from ipucnn.core.registry.records import BackendSpec

THIRD_PARTY = """
import ipucnn
from ipucnn.core.execution.instances import Instances
from ipucnn.core.execution.launcher import Launch, Launcher

class Two(Instances):
    index, count = 1, 2

class Cluster(Launcher):
    def launch(self, environment):
        if "CLUSTER_RANK" not in environment:
            return None
        return Launch(int(environment["CLUSTER_RANK"]), int(environment["CLUSTER_SIZE"]))

    def environment(self, index, count):
        return {"CLUSTER_RANK": str(index), "CLUSTER_SIZE": str(count)}

    def join(self):
        return Two()

@ipucnn.hookimpl
def ipucnn_launchers():
    return [ipucnn.LauncherSpec(name="cluster", summary="s", target=Cluster,
                                variables=("CLUSTER_RANK",)),
            ipucnn.LauncherSpec(name="nothing", summary="s", target=lambda: "no launcher",
                                variables=("NOTHING",))]
"""
CLUSTER = {"CLUSTER_RANK": "1", "CLUSTER_SIZE": "2"}


@pytest.fixture(autouse=True)
def _forget():
    yield
    select(None)
    launching._joined.clear()


@pytest.fixture
def cluster(fake_distribution):
    fake_distribution("cluster-dist", {"cluster_plugin.py": THIRD_PARTY},
                      {"launchers.cluster": "cluster_plugin"})


@pytest.fixture
def local(monkeypatch):
    """This process is the second of three that `local` started."""
    for name, value in environment_of("local", 1, 3).items():
        monkeypatch.setenv(name, value)


class Others(Instances):
    index, count, in_step = 1, 3, False


# -- who started this process --------------------------------------------------------------------


def test_without_a_launcher_a_process_works_alone():
    assert launched({}) is None
    assert launched() is None
    assert launched_count() == 1
    assert is_first()
    assert own_name() == ""
    assert joined() is ALONE


def test_an_instance_is_one_of_its_launcher(local):
    assert launched() == Launch(1, 3, None, "local")
    assert launched_count() == 3
    assert not is_first()
    assert own_name() == "instance 2 of 3: "


def test_the_first_instance_speaks(monkeypatch):
    for name, value in environment_of("local", 0, 2).items():
        monkeypatch.setenv(name, value)
    assert is_first()
    assert own_name() == "instance 1 of 2: "


def test_an_environment_that_is_not_valid_leaves_messages_as_they_are(local, monkeypatch):
    monkeypatch.setenv("IPUCNN_INSTANCE_INDEX", "many")
    with pytest.raises(UsageError, match="'many'"):
        launched()
    assert is_first()
    assert own_name() == ""


@pytest.mark.parametrize(("index", "count"), [(2, 2), (-1, 2), (0, 0)])
def test_an_instance_is_one_of_all(index, count):
    with pytest.raises(UsageError, match=f"describes instance {index} of {count}") as caught:
        Launch(index, count)
    assert caught.value.hint


def test_variables_of_two_launchers_are_ambiguous():
    both = {**launcher_named("local").environment(0, 2),
            **launcher_named("poprun").environment(1, 2)}
    with pytest.raises(UsageError, match="of the launchers local and poprun") as caught:
        launched(both)
    assert "IPUCNN_LAUNCHER=local" in caught.value.hint
    assert launched(both, "poprun") == Launch(1, 2, 2, "poprun")
    assert launched({**both, "IPUCNN_LAUNCHER": "poprun"}) == Launch(1, 2, 2, "poprun")
    select("poprun")
    assert launched(both) == Launch(1, 2, 2, "poprun")


SCRIPT = """
import sys
from ipucnn.core.execution.launching import launched, is_first
print(launched(), is_first(), sorted(
    name for name in sys.modules if name.split(".")[0] in ("torch", "cluster_plugin")
    or name.startswith(("ipucnn.plugins.", "ipucnn.training", "ipucnn.inference"))))
"""


def test_without_variables_nothing_but_records_is_imported():
    done = subprocess.run([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, check=True,
                          universal_newlines=True)
    assert done.stdout.strip() == (
        "None True ['ipucnn.plugins.launchers', 'ipucnn.plugins.launchers.local', "
        "'ipucnn.plugins.launchers.poprun', 'ipucnn.plugins.launchers.torchrun']")


# -- launchers of third parties ------------------------------------------------------------------


def test_a_third_party_launcher_has_to_be_named(cluster):
    assert launched(CLUSTER) is None
    assert "cluster_plugin" not in sys.modules
    found = Launch(1, 2, None, "cluster")
    assert launched(CLUSTER, "cluster") == found
    assert launched({**CLUSTER, launching.VARIABLE: "cluster"}) == found
    select("cluster-dist:cluster")
    assert launched(CLUSTER) == found


def test_the_named_launcher_has_to_have_started_the_process(cluster):
    with pytest.raises(UsageError, match="'cluster' did not start this process") as caught:
        launched({}, "cluster")
    assert "CLUSTER_RANK" in caught.value.hint
    assert launched({}, "local") is None  # the parent of `--instances`


def test_an_unknown_launcher_is_an_error(monkeypatch):
    monkeypatch.setenv(launching.VARIABLE, "slurmm")
    with pytest.raises(UnknownNameError, match="unknown launcher 'slurmm'"):
        launched()
    assert is_first()
    assert own_name() == ""


def test_a_target_that_is_no_launcher_is_an_error(cluster):
    with pytest.raises(PluginError,
                       match=r"'nothing' of .* of type 'str', expected an .* of type 'Launcher'"):
        launched({"NOTHING": "1"}, "nothing")


# -- working together ----------------------------------------------------------------------------


@pytest.mark.parametrize(("launch", "join", "message"), [
    ("3", "Two()", "'launch' of launcher 'cluster' returned 3, expected a Launch or None"),
    ("Launch('0', 2)", "Two()", "a Launch has index '0', expected a whole number"),
    ("Launch(0, 2, local_index=0.0)", "Two()", "a Launch has local_index 0.0"),
    ("Launch(0, 2)", "None", "launcher 'cluster' connected the processes to None, expected "),
])
def test_what_a_launcher_returns_is_checked(isolated_registry, tmp_path, monkeypatch, launch, join,
                                            message):
    path = tmp_path / "cluster.py"
    path.write_text(THIRD_PARTY.replace(
        'Launch(int(environment["CLUSTER_RANK"]), int(environment["CLUSTER_SIZE"]))', launch
    ).replace("return Two()", f"return {join}"))
    isolated_registry(path)
    monkeypatch.setenv("IPUCNN_LAUNCHER", "cluster")
    monkeypatch.setenv("CLUSTER_RANK", "0")
    with pytest.raises(PluginError, match=message):
        joined()


def test_a_process_joins_once(cluster, monkeypatch):
    for name, value in CLUSTER.items():
        monkeypatch.setenv(name, value)
    select("cluster")
    instances = joined()
    assert (instances.index, instances.count) == (1, 2)
    assert joined(ExecutionPlan(replicas=2, instances=2)) is instances


def test_instances_that_a_parent_has_connected_are_the_joined_ones(local):
    with pytest.raises(UnavailableError, match="not connected to the other 2 instances"):
        joined()
    others = Others()
    connect(others)
    assert joined() is others


def test_only_a_launched_process_is_connected():
    with pytest.raises(UsageError, match="no launcher started this process"):
        connect(Others())


class Picky(Launcher):
    def launch(self, environment):
        return Launch(0, 2)

    def environment(self, index, count):
        return {}

    def join(self):
        return Others()

    def check(self, plan):
        raise UsageError(f"not {plan.replicas} replicas")


class Nothing(Backend):
    def probe(self):
        return Probe(usable=True)


def chosen(instances):
    return Chosen(BackendSpec(name="b", summary="s", target=Nothing, instances=instances),
                  Nothing(), Probe(usable=True))


def test_a_launcher_refuses_a_plan_that_it_cannot_serve(local, monkeypatch):
    monkeypatch.setattr("ipucnn.plugins.launchers.local.LocalLauncher", Picky)
    assert joined().count == 3
    with pytest.raises(UsageError, match="not 4 replicas"):
        joined(ExecutionPlan(replicas=4, instances=2))
    with pytest.raises(UsageError, match="not 4 replicas"):
        chosen(True).join(ExecutionPlan(replicas=4, instances=2))


def test_a_backend_joins_the_instances_that_share_its_plan(local, monkeypatch):
    plan = ExecutionPlan(replicas=3, instances=3)
    others = Others()
    connect(others)
    assert chosen(True).join(plan) is others
    assert chosen(False).join(plan) is others  # each has its part of `--instances`
    monkeypatch.setenv("IPUCNN_INSTANCE_INDEX", "0")
    monkeypatch.setenv("IPUCNN_INSTANCE_COUNT", "1")
    assert chosen(False).join(plan) is ALONE
    monkeypatch.undo()
    assert chosen(True).join(plan) is ALONE


# -- replicas ------------------------------------------------------------------------------------


class TestFitted:
    @pytest.fixture
    def options(self):
        from dataclasses import dataclass

        from ipucnn.core.options.composition import CommandOptions, part
        from ipucnn.core.options.declaration import option

        @dataclass(frozen=True)
        class Execution:
            replicas: int = option(1, "replicas")

        @dataclass(frozen=True)
        class Options(CommandOptions):
            execution: Execution = part(Execution)

        return Options()

    @pytest.fixture
    def poprun(self, monkeypatch):
        """This process is one of two with two replicas each."""
        monkeypatch.setenv("POPDIST_NUM_TOTAL_REPLICAS", "4")
        monkeypatch.setenv("POPDIST_NUM_LOCAL_REPLICAS", "2")

    @pytest.mark.usefixtures("poprun")
    def test_the_launcher_sets_the_replicas(self, options):
        made, notes = fitted(options)
        assert made.get("replicas") == 4
        assert notes == []

    @pytest.mark.usefixtures("poprun")
    def test_replicas_that_differ_are_noted(self, options):
        made, notes = fitted(options.with_values(replicas=8))
        assert made.get("replicas") == 4
        assert notes == ["poprun started 4 replicas: '--replicas 8' is not used"]

    @pytest.mark.usefixtures("poprun")
    def test_the_same_replicas_are_not_noted(self, options):
        given = options.with_values(replicas=4)
        assert fitted(given) == (given, [])

    def test_without_a_launcher_options_stay(self, options):
        assert fitted(options) == (options, [])

    def test_a_launcher_may_leave_replicas_alone(self, options, local):
        given = options.with_values(replicas=5)
        assert fitted(given) == (given, [])


# -- the core names no launcher ------------------------------------------------------------------


def test_core_names_no_launcher():
    folder = Path(ipucnn.core.__file__).parent
    sources = sorted(folder.rglob("*.py"))
    assert len(sources) > 10
    found = [str(path.relative_to(folder)) for path in sources
             if re.search("popdist|poprun|horovod", path.read_text(), re.IGNORECASE)]
    assert found == []
