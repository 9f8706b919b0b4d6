"""Executes calls that may fail, stall, or never return."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, List, TypeVar

ResultT = TypeVar("ResultT")


class Failed(Exception):
    """A failed attempt; `final` when another would not help."""

    def __init__(self, what: str, final: bool = False) -> None:
        super().__init__(what)
        self.final = final


class Local(Exception):
    """An error of a local file, not of the store."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Pulse:
    """The progress of an attempt; an abandoned attempt ends at its next report."""

    def __init__(self) -> None:
        self.at = time.monotonic()
        self.lock = threading.Lock()
        self.over = False

    def beat(self) -> None:
        """Report progress."""
        if self.over:
            raise Failed("it was given up")
        self.at = time.monotonic()


def within(timeout: float, call: Callable[[Pulse], ResultT]) -> ResultT:
    """Return what a call returns, unless it makes no progress for `timeout` seconds.

    It runs in a daemon thread: nothing can end a call that waits for a silent store.
    """
    pulse, done = Pulse(), threading.Event()
    result: List[ResultT] = []
    failure: List[BaseException] = []

    def run() -> None:
        try:
            result.append(call(pulse))
        except BaseException as error:
            failure.append(error)
        done.set()

    threading.Thread(target=run, name="ipucnn-store", daemon=True).start()
    while not done.wait(max(0.0, pulse.at + timeout - time.monotonic())):
        if time.monotonic() - pulse.at >= timeout:
            with pulse.lock:
                pulse.over = True
            raise Failed("the store did not respond in time")
    if failure:
        raise failure[0]
    return result[0]


class ours:  # noqa: N801 - used as a function
    """Mark errors of local files in the block."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        if isinstance(error, OSError):
            raise Local(error) from error
