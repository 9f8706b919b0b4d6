"""The interface of launchers, which start several processes for one run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence

from ipucnn.core.errors import PluginError, UsageError
from ipucnn.core.execution.instances import Instances

if TYPE_CHECKING:
    from ipucnn.core.execution.plan import ExecutionPlan


@dataclass(frozen=True)
class Launch:
    """The place of this process among those that a launcher started.

    Attributes:
        index: number of this instance, from 0.
        count: number of instances.
        replicas: number over all instances; None if the launcher does not set it.
        launcher: name of the launcher's record; set by `launched`.
        local_index: number of this instance on its host, from 0; None if the launcher does not
            assign a device to each instance.
        restarts: how often the launcher has restarted the processes after a failure.
        ends_all: the launcher ends the other instances of a host as soon as one has failed.

    Raises:
        UsageError: the index or the count is not valid.
        PluginError: a number is of another type.
    """

    index: int
    count: int
    replicas: Optional[int] = None
    launcher: str = ""
    local_index: Optional[int] = None
    restarts: int = 0
    ends_all: bool = False

    def __post_init__(self) -> None:
        for name, value in (("index", self.index), ("count", self.count),
                            ("replicas", self.replicas), ("local_index", self.local_index),
                            ("restarts", self.restarts)):
            if not hasattr(value, "__index__") and (value is not None or name not in (
                    "replicas", "local_index")):
                raise PluginError(f"a Launch has {name} {value!r}, expected a whole number")
        if not 0 <= self.index < self.count:
            raise UsageError(f"the environment describes instance {self.index} of {self.count}, "
                             "counted from 0", "start the command with its launcher, or unset the "
                             "launcher's environment variables")


class Launcher(ABC):
    """A launcher. A plugin derives from this class.

    Attributes:
        external: a program outside ipucnn starts the processes. If such a launcher is named, a
            process that it did not start is an error.
    """

    external: bool = True

    @abstractmethod
    def launch(self, environment: Mapping[str, str]) -> Optional[Launch]:
        """Return the place described by the variables, or None if they are not this launcher's.

        Args:
            environment: the variables; the process's own are not read.

        Raises:
            UsageError: a variable has no valid value.
        """

    @abstractmethod
    def environment(self, index: int, count: int) -> Dict[str, str]:
        """Return the variables of instance `index` of `count`, each with one replica.

        The inverse of `launch`, for processes that ipucnn itself starts and for tests.
        """

    @abstractmethod
    def join(self) -> Instances:
        """Connect this process to the others; called once per process.

        Raises:
            UnavailableError: a library is missing, or the processes cannot connect.
        """

    def start(self, command: Sequence[str]) -> int:
        """Start the processes of a run, wait for them, and return the exit code.

        Called on an instance that has the launcher's options. The base class raises `UsageError`,
        as the processes are then started from outside.

        Args:
            command: the arguments of the command of every process.

        Raises:
            UsageError: the launcher does not start processes, or not with these options.
            UnavailableError: a library is missing.
        """
        del command
        if not self.external:
            raise UsageError("this launcher starts no processes by itself",
                             "leave '--launcher' out; 'ipucnn run --instances N' starts processes")
        raise UsageError("the launcher's own program starts the processes, not ipucnn",
                         "write it before the command and leave '--launcher' out; 'ipucnn plan' "
                         "helps with the line")

    def check(self, plan: ExecutionPlan) -> None:  # noqa: B027 - most accept every plan
        """Reject a plan that cannot be executed with the processes as they were started.

        Called after `join`. The base class accepts every plan.

        Raises:
            UsageError: the plan is not supported; the hint describes how to start the processes.
        """

    def command(self, plan: ExecutionPlan, hosts: Sequence[str],
                flags: Mapping[str, Any]) -> List[str]:
        """Return the arguments of a shell command that starts the processes of a plan.

        The command of one process is appended to them. The base class returns an empty list.

        Args:
            plan: the plan of all instances together.
            hosts: names of the host servers; empty for this machine.
            flags: further options of the launcher by flag (``--name``): text, a number or a bool.
        """
        del plan, hosts, flags
        return []

    def hosts(self) -> Optional[int]:
        """Return the number of hosts whose processes the options connect, or None.

        With 1, a scheduler may not start the command several times. The base class returns None.
        """
        return None

    def processes(self) -> Optional[int]:
        """Return the number of processes that the options specify, or None.

        `plan` calls it. The base class returns None.
        """
        return None
