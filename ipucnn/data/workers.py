"""What prepares batches ahead: threads, and memory that is used again."""

from __future__ import annotations

import time
import weakref
from collections import defaultdict
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Barrier, Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

if TYPE_CHECKING:
    from types import TracebackType

_STARTING = Lock()

PATIENCE = 3.0
"""Seconds in which threads can end what they are doing when nobody waits for it any more."""


class Threads:
    """Threads that do what they are given, in order, until the end of the block.

    Each computes alone: torch would start a team of threads of its own in every one of them, and
    they would spend their time waiting for each other.

    What is not begun then comes to nothing. A thread that is stuck, as where a server or disk does
    not answer, is left behind: it keeps neither the block nor the process from ending, which is why
    these are not `concurrent.futures`' own.

    Args:
        count: how many.
        name: what they are called.
    """

    def __init__(self, count: int, name: str) -> None:
        self._todo: SimpleQueue[Optional[Tuple[Callable[[], None], Future[None]]]] = SimpleQueue()
        self._over = Event()
        self._threads = [Thread(target=self._work, name=f"{name}-{number}", daemon=True)
                         for number in range(count)]
        self._start()

    def _start(self) -> None:
        import torch

        with _STARTING:  # what a thread is told is also what torch gives those that start later
            together = torch.get_num_threads()
            self._ready = Barrier(len(self._threads) + 1)
            for thread in self._threads:
                thread.start()
            self._ready.wait()
            torch.set_num_threads(together)

    def submit(self, task: Callable[[], None]) -> Future[None]:
        """Have a thread call `task`, and return what tells when it has."""
        future: Future[None] = Future()
        self._todo.put((task, future))
        return future

    def _work(self) -> None:
        import torch

        torch.get_num_threads()  # a thread's first question sets its number, to the general one
        torch.set_num_threads(1)
        self._ready.wait()
        while True:
            item = self._todo.get()
            if item is None or self._over.is_set():
                return
            task, future = item
            del item
            try:
                task()
            except BaseException as error:  # whoever asks for the result gets it
                future.set_exception(error)
            else:
                future.set_result(None)
            del task, future  # waiting for the next task, it would keep the memory of this one

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


class Memory:
    """Memory of batches, used again when nobody refers to a batch any more.

    The system hands out large memory anew each time, page by page, which takes long enough to show.
    """

    def __init__(self) -> None:
        self._free: Dict[Any, List[Any]] = defaultdict(list)

    def take(self, rows: int, shape: Tuple[int, ...], type: str) -> Any:
        """Return the first rows of an array of this shape and type; tensors keep it."""
        import numpy

        free = self._free[shape, type]
        memory = free.pop() if free else numpy.empty(shape, dtype=type)
        array = memory[:rows]  # an object of its own: it ends with the last that refers to it
        weakref.finalize(array, free.append, memory).atexit = False
        return array
