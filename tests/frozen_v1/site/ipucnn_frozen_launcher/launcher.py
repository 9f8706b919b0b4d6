"""The launcher; imported where it is named."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Dict, List, Mapping, Optional, Sequence

from ipucnn.plugin import (
    ALONE,
    Instances,
    Launch,
    Launcher,
    UsageError,
    join_torch_distributed,
)

if TYPE_CHECKING:
    from ipucnn_frozen_launcher.options import LauncherOptions

RANK, SIZE, PORT = "FROZEN_LAUNCHER_RANK", "FROZEN_LAUNCHER_SIZE", "FROZEN_LAUNCHER_PORT"


class FrozenLauncherLauncher(Launcher):
    """Starts processes on this machine and connects them by torch.distributed."""

    external = False  # ipucnn starts the processes, by `start`

    def __init__(self, options: LauncherOptions) -> None:
        self._processes = options.frozen_launcher_processes

    def launch(self, environment: Mapping[str, str]) -> Optional[Launch]:
        """Return the place of a process, or None if this launcher did not start it."""
        if RANK not in environment:
            return None
        rank, size = (_number(environment, name) for name in (RANK, SIZE))
        return Launch(rank, size, local_index=rank)

    def environment(self, index: int, count: int) -> Dict[str, str]:
        """Return the variables of process `index` of `count`."""
        return {RANK: str(index), SIZE: str(count)}

    def start(self, command: Sequence[str]) -> int:
        """Start the processes and return the exit code of the first that fails, else 0."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        running = [subprocess.Popen(list(command), env={
            **os.environ, **self.environment(rank, self._processes), PORT: port})
            for rank in range(self._processes)]
        try:
            return _first_failure(running)
        finally:
            for process in running:
                process.terminate()  # the others wait for one that failed
            for process in running:
                process.wait()

    def join(self) -> Instances:
        """Connect this process to the others."""
        launch = self.launch(os.environ)
        if launch is None or launch.count == 1:
            return ALONE
        os.environ.update(RANK=str(launch.index), WORLD_SIZE=str(launch.count),
                          MASTER_ADDR="127.0.0.1", MASTER_PORT=os.environ[PORT])
        return join_torch_distributed(launch)


def _first_failure(running: List[subprocess.Popen[bytes]]) -> int:
    while True:
        codes = [process.poll() for process in running]
        failed = [code for code in codes if code]
        if failed:  # a negative one is the signal that ended the process
            return failed[0] if failed[0] > 0 else 128 - failed[0]
        if all(code == 0 for code in codes):
            return 0
        time.sleep(0.05)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdecimal():
        raise UsageError(f"environment variable {name} is {text!r}",
                         f"unset {RANK} to run one process")
    return int(text)
