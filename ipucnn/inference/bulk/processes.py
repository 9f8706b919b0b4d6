"""A child process as its parent sees it: started, heard, watched, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from ipucnn.core.files import make_folder
from ipucnn.inference.bulk.child import START

_TAIL_LINES, _TAIL_BYTES = 5, 8192


class Child:
    """One process of a run.

    Args:
        index: of this process.
        log: where everything that it prints goes.
        task: what it is told to do.

    Attributes:
        log: its log file.
        phase: `compile` or `run`.
        done: images that it told to be done.
        total: images of the whole run, as soon as it knows.
        asks: it waits for what the others say.
        said: what it says to them.
        result: what it has at the end: the result of all.
        failure: why its work failed, in its own words.
        exit_code: as soon as it has ended; the negative number of a signal that killed it.
    """

    def __init__(self, index: int, log: Path, task: Dict[str, Any]) -> None:
        self.index, self.log = index, log
        self.phase, self.done = "compile", 0
        self.total: Optional[int] = None
        self.asks, self.said = False, None
        self.result: Any = None
        self.failure: Optional[Dict[str, Any]] = None
        self.exit_code: Optional[int] = None
        self._shown = 0
        self.connection, theirs = Pipe()
        with open(log, "wb") as output, theirs:
            # a session of its own: Ctrl-C on the terminal is for the parent, which passes it on
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, str(theirs.fileno()), *map(str, sys.path)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                pass_fds=[theirs.fileno()], start_new_session=True)
        self.send(task)

    @property
    def working(self) -> bool:
        """Whether it is expected to say more."""
        return self.exit_code is None and self.result is None and self.failure is None

    def send(self, message: Any) -> None:
        """Tell it something; one that has ended does not hear it."""
        with suppress(OSError):
            self.connection.send(message)

    def messages(self) -> Iterator[Any]:
        """Yield what it has said since, and notice its end."""
        code = self._process.poll()  # first: what it said before its end is then there
        try:
            while not self.connection.closed and self.connection.poll():
                yield self.connection.recv()
        except (EOFError, OSError):
            self.connection.close()
        if code is not None and self.exit_code is None:
            self.exit_code = code
            self.connection.close()
            self._kill_group()  # processes that it left behind

    def output(self) -> Iterator[str]:
        """Yield the lines of its log that are new; the last one when it has ended, as it is."""
        with open(self.log, "rb") as file:
            file.seek(self._shown)
            new = file.read()
        whole = len(new) if self.exit_code is not None else new.rfind(b"\n") + 1
        self._shown += whole
        yield from new[:whole].decode("utf-8", "replace").splitlines()

    def tail(self) -> str:
        """Return the last lines of its log."""
        with open(self.log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return "\n".join([line for line in lines if line.strip()][-_TAIL_LINES:])

    def kill(self) -> None:
        """End it at once, and what it has started; nothing happens when it has ended."""
        if self.exit_code is None:
            self._kill_group()
            self.exit_code = self._process.wait()
            self.connection.close()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def ending(self) -> str:
        """Say how the process ended."""
        code = self.exit_code or 0
        if code >= 0:
            return f"ended with exit code {code}"
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"


def log_folder(path: Optional[str]) -> Path:
    """Make the folder of this run's logs, named by date and time, and return it.

    Raises:
        UsageError: it cannot be made.
    """
    logs = path or "logs"
    make_folder(logs, "--log-path")
    name = time.strftime("%Y-%m-%d_%H-%M-%S")
    number = 1
    while True:
        folder = Path(logs, name if number == 1 else f"{name}_{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1
        except OSError:
            return Path(make_folder(str(folder), "--log-path"))  # says why it cannot be made
