"""A child process of `--instances`: executes a task from the parent and reports its progress."""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, Dict, List, Optional

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.instances import Instances
from ipucnn.core.exit_codes import ending_signals
from ipucnn.core.registry.discovery import PluginSettings

START = """
import sys
sys.path[:] = sys.argv[3:]
from ipucnn.inference.bulk.connected import end_with_parent
end_with_parent(int(sys.argv[1]), int(sys.argv[2]))  # from the first moment on
from ipucnn.inference.bulk.child import main
sys.exit(main(int(sys.argv[1])))
"""
"""The program of a child, with the parent's module search path."""

REPORT_INTERVAL = 0.1
"""Seconds between two reports of progress."""


class Crew(Instances):
    """The processes of a run in one of them; all communicate with the parent only.

    Args:
        connection: to the parent.
        index: of this process.
        count: number of processes.
    """

    in_step = False

    def __init__(self, connection: Connection, index: int, count: int) -> None:
        self.index, self.count = index, count
        self._connection = connection
        self._answers: queue.Queue[List[Any]] = queue.Queue()
        self._ready = False
        self._stop = ""
        self._phase = ""
        self._next_report = 0.0
        threading.Thread(target=self._listen, daemon=True).start()

    def gather(self, value: Any) -> List[Any]:
        """Return the values of the processes still alive; see `Instances.gather`."""
        self._connection.send(("gather", value))
        return self._answers.get()

    def failing(self, error: Exception) -> None:
        """See `Instances.failing`."""
        log(f"failed: {error}")
        self._connection.send(("failing", str(error)))

    def progress(self, phase: str, done: int, total: Optional[int]) -> None:
        """Report the progress of this process to the parent.

        Raises:
            KeyboardInterrupt: the parent stops the run.
        """
        if phase != self._phase:
            self._phase = phase
            log({"compile": "preparing", "run": "classifying"}[phase])
        elif time.monotonic() < self._next_report and not self._stop:
            return
        self._next_report = time.monotonic() + REPORT_INTERVAL
        self._connection.send(("progress", (phase, done, total)))
        if self._stop:
            raise KeyboardInterrupt(self._stop)

    def send(self, kind: str, value: Any) -> None:
        """Report the outcome to the parent."""
        self._connection.send((kind, value))

    def _listen(self) -> None:
        """Receive the parent's messages in the background; exit when the parent exits."""
        try:
            while True:
                kind, value = self._connection.recv()
                if kind == "gathered":
                    self._ready = True
                    self._answers.put(value)
                elif self._ready:
                    self._stop = value
                else:  # nothing is classified yet, so nothing is lost
                    log(f"stopped by {value}")
                    os._exit(128 + signal.Signals[value])
        except (EOFError, OSError):
            os._exit(1)


def log(text: str) -> None:
    """Write a line to the log; ignore errors such as a full disk."""
    with suppress(OSError):
        os.write(1, f"{time.strftime('%H:%M:%S')} {text}\n".encode("utf-8", "replace"))


def main(descriptor: int) -> int:
    """Execute the task received over `descriptor` and return the exit code."""
    for number in ending_signals():
        signal.signal(number, signal.SIG_IGN)  # the parent decides, and sends a message
    os.set_inheritable(descriptor, False)
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    connection = Connection(descriptor)
    try:
        task: Dict[str, Any] = connection.recv()
    except (EOFError, OSError):
        return 1
    sys.argv = task["command"]
    task["share"].take()  # before torch counts the cores
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s: %(message)s")
    logging.getLogger("ipucnn").setLevel(task["log_level"])
    crew = _joined(connection, task["plugins"])
    log(f"instance {crew.index} of {crew.count}, process {os.getpid()}")
    try:
        code = _work(task, crew)
    except (BrokenPipeError, ConnectionResetError):  # the parent has ended
        code = 1
    return code


def _joined(connection: Connection, plugins: PluginSettings) -> Crew:
    """Connect this process, which its launcher plugin recognises, to its parent."""
    from ipucnn.core.execution.launching import connect, launched
    from ipucnn.core.registry.registry import Registry, use

    use(Registry(plugins))
    launch = launched()
    assert launch is not None, "the parent has set the launcher's variables"
    crew = Crew(connection, launch.index, launch.count)
    connect(crew)
    return crew


def _work(task: Dict[str, Any], crew: Crew) -> int:
    try:
        from ipucnn.core.options.building import build
        from ipucnn.core.registry.registry import registry
        from ipucnn.inference.job import run
        from ipucnn.inference.options import RunOptions

        options = replace(build(RunOptions, task["options"]), given=task["given"])
        result = run(options, registry(), crew.progress)
    except IpucnnError as error:
        log(f"error: {error}")
        crew.send("failed", {"kind": type(error).__name__, "message": error.message,
                             "hint": error.hint, "exit_code": error.exit_code,
                             "partial": error.partial})
        return error.exit_code
    except MemoryError:
        crew.send("failed", {"kind": "IpucnnError", "message": "this machine is out of memory",
                             "hint": "use a smaller batch, or fewer instances", "exit_code": 1})
        return 1
    except BaseException as error:
        traceback.print_exc()
        lines = str(error).splitlines()
        crew.send("crashed", ": ".join([type(error).__name__, *lines[:1]]))
        return 1
    for own in result.instances:
        if own["index"] == crew.index:
            log(_summary(own))
    crew.send("done", result)
    return 0


def _summary(own: Dict[str, Any]) -> str:
    """Return this process's measurements in one line."""
    parts = [f"classified {own['images']} images"]
    if own["throughput"]:
        parts.append("throughput {mean:.1f} images/s (std {std:.1f}, min {min:.1f}, max {max:.1f})"
                     .format(**own["throughput"]))
    if own["latency_ms"]:
        parts.append("latency p50 {p50:.2f} ms, p90 {p90:.2f} ms, p99 {p99:.2f} ms".format(
            **own["latency_ms"]))
    return ", ".join(parts)
