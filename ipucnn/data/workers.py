"""Worker threads and reusable batch memory for prefetching."""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections import defaultdict
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from queue import SimpleQueue
from threading import Barrier, Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

if TYPE_CHECKING:
    from types import TracebackType

_STARTING = Lock()

USERS: ContextVar[Tuple[object, ...]] = ContextVar("ipucnn_users", default=())
"""The objects for which the current thread prepares images; worker threads inherit them."""

PATIENCE = 3.0
"""Seconds that threads have to finish their current task when the block ends."""


class Threads:
    """A thread pool that executes tasks in order until the end of the block.

    Where torch is loaded, each thread sets torch's own thread count to 1: otherwise torch would
    start a thread team in each of them, and these would spend their time waiting for each other.

    On Linux, a thread that receives a task does not interrupt the thread that computes with the
    results (scheduling policy SCHED_BATCH); both get the same share of the processor.

    At the end of the block, pending tasks are dropped. A thread that is stuck, as when a server or
    disk does not respond, is abandoned: it blocks neither the end of the block nor that of the
    process, unlike the executors of `concurrent.futures`.

    Args:
        count: how many.
        name: prefix of their names.
    """

    def __init__(self, count: int, name: str) -> None:
        self._todo: SimpleQueue[Optional[Tuple[Callable[[], None], Future[None]]]] = SimpleQueue()
        self._over = Event()
        self._users = USERS.get()
        self._threads = [Thread(target=self._work, name=f"{name}-{number}", daemon=True)
                         for number in range(count)]
        self._start()

    def _start(self) -> None:
        self._torch = sys.modules.get("torch")
        with _STARTING:  # torch applies a thread's setting to threads that start later, too
            together = self._torch.get_num_threads() if self._torch else 0
            self._ready = Barrier(len(self._threads) + 1)
            for thread in self._threads:
                thread.start()
            self._ready.wait()
            if self._torch:
                self._torch.set_num_threads(together)

    def submit(self, task: Callable[[], None]) -> Future[None]:
        """Queue a task and return its future."""
        future: Future[None] = Future()
        self._todo.put((task, future))
        return future

    def _work(self) -> None:
        _batch_scheduling()
        USERS.set(self._users)
        if self._torch:
            # the first query in a thread sets its count to the global one
            self._torch.get_num_threads()
            self._torch.set_num_threads(1)
        self._ready.wait()
        while True:
            item = self._todo.get()
            if item is None or self._over.is_set():
                return
            task, future = item
            del item
            try:
                task()
            except BaseException as error:  # raised where the result is read
                future.set_exception(error)
            else:
                future.set_result(None)
            del task, future  # otherwise kept alive while waiting for the next task

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self._over.set()
        for _ in self._threads:
            self._todo.put(None)
        until = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


def _batch_scheduling() -> None:
    """Set the scheduling policy of this thread, unless the process has one by its user's choice."""
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):  # a sandbox may not allow it
            if os.sched_getscheduler(0) == os.SCHED_OTHER:
                os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class _Lease:
    """Owner of an array's memory, which every view of the array keeps alive.

    numpy links a view directly to the array that owns the memory, so that the array that was handed
    out would be released while views of it are in use.
    """

    def __init__(self, array: Any) -> None:
        self.__array_interface__ = array.__array_interface__


class Memory:
    """Batch memory, reused when a batch is no longer referenced.

    The system maps large allocations again each time, page by page, which takes measurable time.
    """

    def __init__(self) -> None:
        self._free: Dict[Any, List[Any]] = defaultdict(list)

    def take(self, rows: int, shape: Tuple[int, ...], type: str) -> Any:
        """Return the first rows of a free array; its views, and tensors on it, occupy it.

        Args:
            rows: how many, at least 1.
            shape: of the whole array.
            type: of its values.
        """
        import numpy

        free = self._free[shape, type]
        memory = free.pop() if free else self.new(shape, type)
        lease = _Lease(memory[:rows])
        weakref.finalize(lease, free.append, memory).atexit = False
        return numpy.asarray(lease)

    def new(self, shape: Tuple[int, ...], type: str) -> Any:
        """Return an array whose content is arbitrary."""
        import numpy

        return numpy.empty(shape, dtype=type)
