"""One of the processes of `--instances`: it gets a task from the parent and tells how it goes."""

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
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.instances import Instances

START = ("import sys; sys.path[:] = sys.argv[2:]; "
         "from ipucnn.inference.bulk.child import main; sys.exit(main(int(sys.argv[1])))")
"""The program of a child: the parent's ways to modules, so that it finds the same ones."""

TELL_INTERVAL = 0.1
"""Seconds between two reports of progress."""


class Crew(Instances):
    """The processes of a run, as one of them sees them; all talk to the parent only.

    Args:
        connection: to the parent.
        index: of this process.
        count: processes.
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
        """Return the values of the processes that still live; see `Instances.gather`."""
        self._connection.send(("gather", value))
        return self._answers.get()

    def prediction_writer(self, path: str, columns: Sequence[str]) -> Any:
        """Return what writes a part; see `Instances.prediction_writer`."""
        from ipucnn.inference.bulk.parts import PartWriter

        return PartWriter(Path(path), columns, self.index)

    def failing(self, error: Exception) -> None:
        """See `Instances.failing`."""
        log(f"failed: {error}")
        self._connection.send(("failing", str(error)))

    def progress(self, phase: str, done: int, total: Optional[int]) -> None:
        """Tell the parent how far this process is.

        Raises:
            KeyboardInterrupt: the parent wants the run to end here.
        """
        if phase != self._phase:
            self._phase = phase
            log({"compile": "preparing", "run": "classifying"}[phase])
        elif time.monotonic() < self._next_report and not self._stop:
            return
        self._next_report = time.monotonic() + TELL_INTERVAL
        self._connection.send(("progress", (phase, done, total)))
        if self._stop:
            raise KeyboardInterrupt(self._stop)

    def tell(self, kind: str, value: Any) -> None:
        """Tell the parent how the work ended."""
        self._connection.send((kind, value))

    def _listen(self) -> None:
        """Hear the parent, also when this process is busy or waits; end when the parent ends."""
        try:
            while True:
                kind, value = self._connection.recv()
                if kind == "gathered":
                    self._ready = True
                    self._answers.put(value)
                elif self._ready:
                    self._stop = value
                else:  # nothing was classified yet that would be lost
                    log(f"stopped by {value}")
                    os._exit(128 + signal.Signals[value])
        except (EOFError, OSError):
            os._exit(1)


def log(text: str) -> None:
    """Write a line into the log; a full disk does not stop the work."""
    with suppress(OSError):
        os.write(1, f"{time.strftime('%H:%M:%S')} {text}\n".encode("utf-8", "replace"))


def main(descriptor: int) -> int:
    """Do the task that comes over `descriptor` and return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides, and says so
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
    crew = Crew(connection, task["index"], task["count"])
    log(f"instance {crew.index} of {crew.count}, process {os.getpid()}")
    try:
        code = _work(task, crew)
    except (BrokenPipeError, ConnectionResetError):  # the parent has ended
        code = 1
    return code


def _work(task: Dict[str, Any], crew: Crew) -> int:
    try:
        from ipucnn.core.options import RunOptions
        from ipucnn.core.options.declaration import build
        from ipucnn.core.registry.registry import Registry, use
        from ipucnn.inference.job import run

        registry = Registry(task["plugins"])
        use(registry)
        result = run(build(RunOptions, task["options"]), registry, crew.progress, crew)
    except IpucnnError as error:
        log(f"error: {error}")
        crew.tell("failed", {"kind": type(error).__name__, "message": error.message,
                             "hint": error.hint, "exit_code": error.exit_code,
                             "partial": error.partial})
        return error.exit_code
    except MemoryError:
        crew.tell("failed", {"kind": "IpucnnError", "message": "this machine is out of memory",
                             "hint": "use a smaller batch, or fewer instances", "exit_code": 1})
        return 1
    except BaseException as error:
        traceback.print_exc()
        lines = str(error).splitlines()
        crew.tell("crashed", ": ".join([type(error).__name__, *lines[:1]]))
        return 1
    for own in result.instances:
        if own["index"] == crew.index:
            log(_summary(own))
    crew.tell("done", result)
    return 0


def _summary(own: Dict[str, Any]) -> str:
    """Return what this process measured, in a line."""
    parts = [f"classified {own['images']} images"]
    if own["throughput"]:
        parts.append("throughput {mean:.1f} images/s (std {std:.1f}, min {min:.1f}, max {max:.1f})"
                     .format(**own["throughput"]))
    if own["latency_ms"]:
        parts.append("latency p50 {p50:.2f} ms, p90 {p90:.2f} ms, p99 {p99:.2f} ms".format(
            **own["latency_ms"]))
    return ", ".join(parts)
