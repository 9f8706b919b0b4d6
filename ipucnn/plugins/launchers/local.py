"""The `local` launcher: processes of `--instances`, started by ipucnn on this machine."""

from __future__ import annotations

import os
from typing import Dict, List, Mapping, Optional

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.execution.launcher import Launch, Launcher
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import LauncherSpec

INDEX, COUNT = "IPUCNN_INSTANCE_INDEX", "IPUCNN_INSTANCE_COUNT"


class LocalLauncher(Launcher):
    """Recognises the child processes of `ipucnn run --instances N`.

    Their parent connects them (`ipucnn.core.execution.launching.connect`), each to itself.
    """

    external = False

    def launch(self, environment: Mapping[str, str]) -> Optional[Launch]:
        """Read the variables that the parent sets; see `Launcher.launch`."""
        if INDEX not in environment and COUNT not in environment:
            return None
        return Launch(_number(environment, INDEX), _number(environment, COUNT))

    def environment(self, index: int, count: int) -> Dict[str, str]:
        """Return the variables of a child; see `Launcher.environment`."""
        return {INDEX: str(index), COUNT: str(count)}

    def join(self) -> Instances:
        """Return the single process.

        Raises:
            UnavailableError: there are other processes, and the parent has not connected this one.
        """
        launch = self.launch(os.environ)
        if launch is not None and launch.count > 1:
            raise UnavailableError(
                f"this process is not connected to the other {launch.count - 1} instances",
                f"unset {INDEX} and {COUNT}, which only 'ipucnn run --instances' sets")
        return ALONE


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdecimal():
        raise UsageError(f"environment variable {name} is {text!r}",
                         "'ipucnn run --instances' sets it: unset it to run one process")
    return int(text)


@hookimpl
def ipucnn_launchers() -> List[LauncherSpec]:
    """Return the record of the `local` launcher."""
    return [LauncherSpec(name="local", summary="the processes of '--instances' on this machine",
                         target="ipucnn.plugins.launchers.local:LocalLauncher",
                         variables=(INDEX, COUNT))]
