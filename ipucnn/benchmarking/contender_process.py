"""The process of one contender of `ipucnn bench`: prepares a case and measures it in turns."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, Optional

from ipucnn.benchmarking.case import (
    LIMIT,
    OVER,
    OWN,
    READY,
    REFUSED,
    TRAIN,
    TUNE,
    TURN,
    Case,
    Contender,
    Facts,
    Link,
    RefusedError,
)
from ipucnn.benchmarking.process_memory import forget_peak, peak_memory
from ipucnn.core.allocator import keep_freed_memory
from ipucnn.core.errors import IpucnnError
from ipucnn.core.exit_codes import ending_signals
from ipucnn.core.registry.registry import Registry, use

START = """
import sys
sys.path[:] = sys.argv[3:]
from ipucnn.core.orphans import end_with_parent
end_with_parent(int(sys.argv[2]))
from ipucnn.benchmarking.contender_process import main
sys.exit(main(int(sys.argv[1])))
"""
"""The program of the process, with the parent's module search path."""

_ENGINES = {"onnxruntime": "onnxruntime", "openvino-latency": "openvino",
            "openvino-throughput": "openvino", "decoding": "simplejpeg"}
"""What other contenders than ipucnn import ahead, while others are prepared; torch by default."""


class _Pipe(Link):
    """The link over a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ready(self) -> None:
        self._connection.send((READY,))

    def wait(self) -> Optional[float]:
        seconds: Optional[float] = self._connection.recv()
        return seconds

    def done(self, images: float, seconds: float) -> None:
        self._connection.send((TURN, images, seconds))


def main(descriptor: int) -> int:
    """Measure the cases that arrive over `descriptor`; return the exit code."""
    for number in ending_signals():
        signal.signal(number, signal.SIG_IGN)  # the parent decides
    os.set_inheritable(descriptor, False)
    connection = Connection(descriptor)
    try:
        contender, settings = connection.recv()
        if contender.kind == OWN:
            keep_freed_memory()  # as its commands
        use(Registry(settings))
        _import(contender)
        while True:
            case = connection.recv()
            if case is None:
                return 0
            forget_peak()
            try:
                facts = measure(contender, case, _Pipe(connection))
            except FAILURES as error:
                connection.send((REFUSED, reason_of(error)))
            else:
                connection.send((OVER, {**facts, "peak_memory": peak_memory()}))
            gc.collect()
    except (EOFError, BrokenPipeError, ConnectionError):  # the parent has ended
        return 1


FAILURES = (IpucnnError, RefusedError, ArithmeticError, AttributeError, ImportError, LookupError,
            MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""Errors for which a contender is left out of a case; other programs raise many kinds of them."""


def reason_of(error: BaseException) -> str:
    """Return why a contender is left out."""
    text = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, IpucnnError):
        return error.message
    if isinstance(error, RefusedError):
        return text
    if isinstance(error, ImportError):
        return f"it is not installed, or cannot be imported: {text}"
    return f"{type(error).__name__}: {text}"


def _import(contender: Contender) -> None:
    """Import the engine ahead, which takes seconds."""
    with suppress(ImportError, OSError, RuntimeError):  # raised again when the case is measured
        import_module("ipucnn.inference.job" if contender.kind == OWN else
                      _ENGINES.get(contender.name, "torch"))


def measure(contender: Contender, case: Case, link: Link) -> Facts:
    """Measure a contender in a case, until there are no more turns; return its facts.

    Raises:
        RefusedError: it cannot do this.
        IpucnnError: likewise, of `ipucnn`.
    """
    measured = _function(contender, case)
    found: Facts = measured(contender.name, case, link)
    return found


def _function(contender: Contender, case: Case) -> Any:
    if contender.kind == LIMIT:
        from ipucnn.benchmarking import limits

        return limits.measured
    if contender.kind == OWN:
        from ipucnn.benchmarking import own

        return {TRAIN: own.training, TUNE: own.tuning}.get(case.job, own.inference)
    if case.job == TRAIN:
        from ipucnn.benchmarking import peer_training

        return peer_training.training
    from ipucnn.benchmarking import peers

    return peers.inference


if __name__ == "__main__":
    sys.exit("this module is started by 'ipucnn bench'")
