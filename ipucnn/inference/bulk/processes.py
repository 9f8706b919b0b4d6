"""Manages a child process: starts it, exchanges messages, monitors and terminates it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional

from ipucnn.core.files import make_folder
from ipucnn.inference.bulk.child import START

_TAIL_LINES, _TAIL_BYTES = 5, 8192


class Child:
    """One process of a run.

    Args:
        index: of this process.
        log: the file for its output.
        task: the task to execute.
        variables: environment variables by which its launcher plugin recognises it.

    Attributes:
        log: its log file.
        phase: `compile` or `run`.
        done: images that it reported as done.
        total: images of the whole run, when known.
        gathering: whether it waits for the values of the others.
        value: its value for the others.
        result: its final message: the result of all.
        failure: its error.
        exit_code: set when it has ended; the negative number of a signal that killed it.
        stopped_by: name of the signal that stopped it, until it continues or ends; else empty.
    """

    def __init__(self, index: int, log: Path, task: Dict[str, Any],
                 variables: Mapping[str, str]) -> None:
        self.index, self.log = index, log
        self.phase, self.done = "compile", 0
        self.total: Optional[int] = None
        self.gathering, self.value = False, None
        self.result: Any = None
        self.failure: Optional[Dict[str, Any]] = None
        self.exit_code: Optional[int] = None
        self.stopped_by = ""
        self._shown = 0
        self.connection, theirs = Pipe()
        with open(log, "wb") as output, theirs:
            # a separate session, so that only the parent receives Ctrl-C, which it forwards
            self._process = subprocess.Popen(
                [sys.executable, "-c", START, str(theirs.fileno()), str(os.getpid()),
                 *map(str, sys.path)],
                env={**os.environ, **variables}, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, pass_fds=[theirs.fileno()], start_new_session=True)
        self.send(task)

    @property
    def number(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def working(self) -> bool:
        """Whether further messages are expected."""
        return self.exit_code is None and self.result is None and self.failure is None

    def send(self, message: Any) -> None:
        """Send it a message; ignored when the process has ended."""
        with suppress(OSError):
            self.connection.send(message)

    def messages(self) -> Iterator[Any]:
        """Yield new messages, and detect its end, and whether it is stopped."""
        self._detect_stop()
        code = self._process.poll()  # first, so that messages sent before its end are available
        try:
            while not self.connection.closed and self.connection.poll():
                yield self.connection.recv()
        except (EOFError, OSError):
            self.connection.close()
        if code is not None and self.exit_code is None:
            self.exit_code = code
            self.connection.close()
            self._kill_group()  # remaining child processes

    def _detect_stop(self) -> None:
        if not hasattr(os, "waitid"):  # macOS, with older versions of Python
            return
        changes = os.WSTOPPED | os.WCONTINUED  # `Popen` handles its end
        with suppress(OSError):
            found = os.waitid(os.P_PID, self._process.pid, changes | os.WNOHANG)
            if found is not None and found.si_code == os.CLD_CONTINUED:
                self.stopped_by = ""
            elif found is not None:
                self.stopped_by = signal.Signals(found.si_status).name

    def output(self) -> Iterator[str]:
        """Yield new lines of its log; an incomplete last line only when it has ended."""
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
        """Kill it and its child processes; do nothing when it has ended."""
        if self.exit_code is None:
            self._kill_group()
            self.exit_code = self._process.wait()
            self.connection.close()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def ending(self) -> str:
        """Return how the process ended, as text."""
        code = self.exit_code or 0
        if code >= 0:
            return f"ended with exit code {code}"
        with suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
        return f"was killed by signal {-code}"


def log_folder(path: Optional[str]) -> Path:
    """Create the folder for this run's logs, named by date and time, and return it.

    Raises:
        UsageError: it cannot be created.
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
            return Path(make_folder(str(folder), "--log-path"))  # raises the error with the reason
