"""The `torchrun` launcher: torch.distributed starts and connects processes on CPUs and GPUs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.execution.launcher import Launch, Launcher
from ipucnn.core.orphans import PARENT, end_with_parent
from ipucnn.core.registry.contract import Requirement
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import LauncherSpec

if TYPE_CHECKING:
    from ipucnn.core.execution.plan import ExecutionPlan
    from ipucnn.plugins.launchers._torchrun_options import TorchRunOptions

RUN = "TORCHELASTIC_RUN_ID"
RANK, WORLD, LOCAL_RANK = "RANK", "WORLD_SIZE", "LOCAL_RANK"
RESTARTS = "TORCHELASTIC_RESTART_COUNT"
AGENT = "TORCHELASTIC_USE_AGENT_STORE"
"""A variable that only the elastic agent sets, not users who set the other variables."""

PORT = 29400
"""The port of the rendezvous in a printed command; torchrun's default."""


class TorchRunLauncher(Launcher):
    """Recognises, starts and connects the processes of `torchrun`."""

    external = False

    def __init__(self, options: Optional[TorchRunOptions] = None) -> None:
        self.options = options

    def launch(self, environment: Mapping[str, str]) -> Optional[Launch]:
        """Read torchrun's variables; see `Launcher.launch`.

        Source: the documentation of `torchrun`, "Environment Variables".
        """
        if RUN not in environment:
            return None
        return Launch(_number(environment, RANK), _number(environment, WORLD),
                      local_index=_number(environment, LOCAL_RANK),
                      restarts=_number(environment, RESTARTS), ends_all=AGENT in environment)

    def environment(self, index: int, count: int) -> Dict[str, str]:
        """Return the variables of one process of a host; see `Launcher.environment`."""
        return {RUN: "none", RANK: str(index), WORLD: str(count), LOCAL_RANK: str(index),
                RESTARTS: "0"}

    def start(self, command: Sequence[str]) -> int:
        """Start the processes with torch's elastic agent; see `Launcher.start`."""
        from ipucnn.plugins.launchers import _elastic
        from ipucnn.plugins.launchers._torchrun_options import TorchRunOptions

        return _elastic.start(command, self.options or TorchRunOptions())

    def hosts(self) -> Optional[int]:
        """Return the largest number of `--nnodes`; see `Launcher.hosts`."""
        return self.options.hosts[1] if self.options else 1

    def processes(self) -> Optional[int]:
        """Return `--nproc` times `--nnodes`; see `Launcher.processes`."""
        options = self.options
        return options.nproc * options.hosts[1] if options and options.nproc else None

    def command(self, plan: ExecutionPlan, hosts: Sequence[str],
                flags: Mapping[str, Any]) -> List[str]:
        """Return the `torchrun` command of a plan; see `Launcher.command`.

        A pipeline needs a process for each stage.

        Raises:
            UsageError: the hosts cannot share the processes.
        """
        from ipucnn.plugins.launchers._torchrun_options import TorchRunOptions

        options = self.options or TorchRunOptions()
        nodes = options.nnodes if options.hosts[1] > 1 else str(len(hosts) or 1)
        most = int(nodes.rpartition(":")[2])
        count = plan.instances * (plan.stages if plan.pipelined else 1)
        if options.nproc is None and count % most:
            raise UsageError(f"{count} processes cannot be divided among {most} hosts",
                             f"use a number that is a multiple of {most}")
        words = ["torchrun", f"--nproc-per-node={options.nproc or count // most}"]
        if most == 1:
            words.append("--standalone")
        else:
            place = options.rdzv_endpoint or f"{hosts[0]}:{PORT}"
            words += [f"--nnodes={nodes}", "--rdzv-backend=c10d", "--rdzv-id=ipucnn",
                      f"--rdzv-endpoint={place}"]
        if options.max_restarts:
            words.append(f"--max-restarts={options.max_restarts}")
        return [*words, *(f"{flag}={value}" for flag, value in flags.items()), "-m"]

    def join(self) -> Instances:
        """Connect the processes by a group of torch.distributed; see `Launcher.join`."""
        launch = self.launch(os.environ)
        parent = os.environ.pop(PARENT, "")
        if launch is not None and parent.isdecimal():
            end_with_parent(int(parent))
        if launch is None:
            raise UnavailableError("torchrun did not start this process",
                                   "start the command with 'torchrun', or '--launcher torchrun'")
        return join(launch) if launch.count > 1 else ALONE


def join(launch: Launch) -> Instances:
    """Connect a process to the others by torch.distributed, for launchers that set its variables.

    These are RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.

    Args:
        launch: the place of the process.

    Raises:
        UnavailableError: the others cannot be reached.
    """
    from ipucnn.plugins.launchers._distributed import join as joined

    return joined(launch)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "0" if name == RESTARTS else "")
    if not text.isdecimal():
        raise UsageError(f"environment variable {name} is {text!r}",
                         f"torchrun sets it: unset {RUN} to run one process")
    return int(text)


@hookimpl
def ipucnn_launchers() -> List[LauncherSpec]:
    """Return the record of the `torchrun` launcher."""
    return [LauncherSpec(
        name="torchrun", summary="torch.distributed: several processes, GPUs and hosts",
        target="ipucnn.plugins.launchers.torchrun:TorchRunLauncher", variables=(RUN,),
        requires=(Requirement("torch", "pip install torch torchvision"),),
        options="ipucnn.plugins.launchers._torchrun_options:TorchRunOptions")]
