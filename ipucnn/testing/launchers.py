"""Conformance suite for launchers."""

from __future__ import annotations

import json
import os
import sys
from tempfile import TemporaryDirectory
from typing import Any, Dict, Iterator, Mapping, Tuple
from unittest import SkipTest
from unittest.mock import patch

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.instances import Instances
from ipucnn.core.execution.launcher import Launcher
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.names import described
from ipucnn.core.registry.records import LauncherSpec
from ipucnn.testing.suite import Suite, require


class LauncherSuite(Suite):
    """Checks a launcher; processes are started if it can start them itself.

    Attributes:
        counts: numbers of instances whose variables are read back.
    """

    counts: Tuple[int, ...] = (1, 2, 5)

    @property
    def spec(self) -> LauncherSpec:
        """The record under test."""
        return self.used_registry.get_typed(LauncherSpec, self.name)

    def build(self) -> Launcher:
        """Return the launcher."""
        self.target()  # skips the check if a requirement is missing
        launcher = self.used_registry.make(self.spec)
        require(isinstance(launcher, Launcher), f"the target returned {described(launcher)}")
        return launcher  # type: ignore[no-any-return]

    def environments(self, launcher: Launcher) -> Iterator[Tuple[int, int, Dict[str, str]]]:
        """Yield the index and the number of instances with the variables of each instance."""
        for count in self.counts:
            for index in range(count):
                yield index, count, launcher.environment(index, count)

    def test_record_names_its_variables(self) -> None:
        """A process of the launcher has one of the record's variables."""
        names = self.spec.variables
        require(bool(names) and all(names), "the record names no environment variable")
        for _, _, variables in self.environments(self.build()):
            require(bool(set(variables) & set(names)),
                    f"the launcher sets {sorted(variables)}, and the record names {sorted(names)}")

    def test_recognises_its_processes(self) -> None:
        """Every instance recognises its index and the number of instances."""
        launcher = self.build()
        for index, count, variables in self.environments(launcher):
            launch = launcher.launch(variables)
            require(launch is not None, f"it does not recognise its own variables {variables}")
            assert launch is not None
            require((launch.index, launch.count) == (index, count),
                    f"instance {index} of {count} finds itself {launch.index} of {launch.count}")
            require(launch.replicas is None
                    or (launch.replicas > 0 and launch.replicas % count == 0),
                    f"{launch.replicas} replicas cannot be divided among {count} instances")

    def test_other_processes_are_not_its_own(self) -> None:
        """Without its variables a process is not one of the launcher's."""
        launcher = self.build()
        for variables in ({}, {"PATH": "/bin", "HOME": "/"}):
            require(launcher.launch(variables) is None, f"it recognises {variables} as its own")

    def test_reads_only_the_environment_it_is_given(self) -> None:
        """The variables of the process itself have no effect."""
        launcher = self.build()
        with patch.dict(os.environ, launcher.environment(1, 2)):
            require(launcher.launch({}) is None, "it reads the variables of the process")

    def test_a_variable_that_is_not_valid_is_a_usage_error(self) -> None:
        """A value that is not a number is rejected with `UsageError`."""
        launcher = self.build()
        variables = launcher.environment(0, 2)
        for name in variables:
            try:
                launch = launcher.launch({**variables, name: "many"})
            except UsageError:
                continue
            require(launch is not None,
                    f"with {name}='many' the process counts as one without a launcher")

    def test_one_instance_joins(self) -> None:
        """A single instance exchanges values with itself."""
        import torch

        launcher = self.build()
        with patch.dict(os.environ, launcher.environment(0, 1)):
            instances = _joined(launcher)
            require((instances.index, instances.count) == (0, 1),
                    f"it joins as instance {instances.index} of {instances.count}")
            value: Any = {"text": "a", "integer": 2**62 + 1, "none": None}
            require(instances.gather(value) == [value],
                    "it does not gather exactly its own value")
            require(instances.totals([1.5, 2]) == [1.5, 2], "the totals are not its own values")
            tensor = torch.tensor([2**53 + 1, 3])
            require(torch.equal(instances.sum(tensor.clone()), tensor),
                    "the sum is not its own tensor")
            weights = {"weight": torch.ones(2)}
            instances.share(weights)
            require(torch.equal(weights["weight"], torch.ones(2)), "sharing changes the weights")

    def test_start_returns_the_exit_code_of_a_rank(self) -> None:
        """The exit code of `start` is 0 if all processes end with 0, else that of one that failed.

        The processes are short Python programs.
        """
        launcher = self.made()
        if type(launcher).start is Launcher.start:
            raise SkipTest("its own program starts the processes")
        with TemporaryDirectory() as folder:
            code, count = _started(launcher, folder, 0, 0)
            require(code == 0, f"'start' returned {code}, and every process ended with 0")
            require(count > 0, "'start' started no process")
            cases = [("all processes", 7, 7), ("all processes but the first", 0, 7)]
            for which, mine, others in cases[:count]:
                code, _ = _started(launcher, folder, mine, others)
                require(code == 7, f"'start' returned {code}, and {which} ended with 7")

    def test_command_is_words(self) -> None:
        """The command that starts the processes is a list of arguments; it may be empty."""
        flags: Mapping[str, Any] = {"--name": "text", "--number": 2, "--switch": True}
        plan = ExecutionPlan(replicas=2, instances=2)
        words = self.build().command(plan, ("one", "two"), flags)
        require(isinstance(words, list) and all(isinstance(word, str) and word for word in words),
                f"the command is {words!r}, not a list of words")


_PROGRAM = """
import json, os, sys, tempfile
folder, names, first, codes = json.loads(sys.argv[1])
tempfile.mkstemp(dir=folder)
is_first = all(os.environ.get(name) == value for name, value in first.items() if name in names)
sys.exit(codes[0] if is_first else codes[1])
"""


def _started(launcher: Launcher, folder: str, first: int, others: int) -> Tuple[int, int]:
    """Start processes that end with a code; return the launcher's and the number of processes."""
    one, two = launcher.environment(0, 2), launcher.environment(1, 2)
    differ = [name for name in one if one[name] != two.get(name)]
    before = len(os.listdir(folder))
    code = launcher.start([sys.executable, "-c", _PROGRAM, json.dumps(
        [folder, differ, one, [first, others]])])
    return code, len(os.listdir(folder)) - before


def _joined(launcher: Launcher) -> Instances:
    try:
        instances = launcher.join()
    except UnavailableError as error:
        raise SkipTest(f"not usable here: {error.message}") from error
    require(isinstance(instances, Instances), f"'join' returned {described(instances)}")
    return instances
