"""A data loader whose images are prepared by threads of this process."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from functools import partial
from itertools import islice
from typing import Any, Deque, Generator, Iterator, List, Optional, Tuple

from ipucnn.core.errors import DataError
from ipucnn.data.loader import Block, Entry, Loader
from ipucnn.data.workers import Memory, Threads

_TASK = 32
"""Images that a thread prepares at a time: few enough to divide a batch among threads, and enough
to amortise the overhead of a task."""

_AHEAD = 32
"""Minimum number of images to prepare ahead, in two batches or more: sessions that take few images
per call would wait whenever a few images take longer than others."""


class HostLoader(Loader):
    """Batches prepared ahead by threads.

    Decoding and resizing release the GIL, so threads suffice. Each thread writes directly into
    the batch. A few batches are prepared ahead, so memory does not grow with the number
    of images. Its threads end after the images they are working on. Without workers, each batch is
    prepared in the calling thread on demand.

    Args:
        arguments: see `Loader`.
        memory: of batches, to share it with other loaders.
        settings: those of `LoaderSettings`.
    """

    def __init__(self, *arguments: Any, memory: Optional[Memory] = None,
                 **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._memory = memory or Memory()

    def blocks(self, todo: Iterator[Entry]) -> Generator[Block, None, None]:
        """Return whole batches, which threads begin to prepare at once; see `Loader.blocks`."""
        if not self.workers:
            return self._here(todo)
        blocks = self._by_threads(todo)
        next(blocks)
        return blocks

    def _by_threads(self, todo: Iterator[Entry]) -> Generator[Any, None, None]:
        """Yield None when the threads have work, then whole batches."""
        # small batches cannot occupy many threads: prepare more of them ahead
        ahead = max(2, _AHEAD // self.batch_size) + self.workers // self.batch_size
        queue: Deque[Tuple[Block, List[Future[None]]]] = deque()
        with Threads(self.workers, "ipucnn-decode") as threads:

            def fill() -> None:
                while len(queue) <= ahead:
                    entries = list(islice(todo, self.batch_size))
                    if not entries:
                        break
                    queue.append(self._submitted(threads, entries))

            fill()
            yield None
            while queue:
                block, tasks = queue.popleft()
                for task in tasks:
                    task.result()
                yield block
                fill()

    def _here(self, todo: Iterator[Entry]) -> Generator[Block, None, None]:
        while True:
            entries = list(islice(todo, self.batch_size))
            if not entries:
                return
            block = self._empty(entries)
            self._fill(block, 0, len(entries))
            yield block

    def _empty(self, entries: List[Entry]) -> Block:
        return Block(self._memory.take(len(entries), (self.batch_size, *self.prepare.shape),
                                       self.prepare.type), entries)

    def _submitted(self, threads: Threads,
                   entries: List[Entry]) -> Tuple[Block, List[Future[None]]]:
        block = self._empty(entries)
        step = max(1, min(_TASK, len(entries) // self.workers))
        return block, [threads.submit(partial(self._fill, block, first, first + step))
                       for first in range(0, len(entries), step)]

    def _fill(self, block: Block, begin: int, end: int) -> None:
        indices = [index for _, index in block.entries[begin:end]]
        draws = self.prepare.all_drawn(indices, self.epoch)
        for row, index, drawn in zip(range(begin, end), indices, draws):
            try:
                self.prepare.write(index, drawn, block.pixels[row])
            except DataError as error:
                block.failed[row] = error
                if not self.skip_bad:
                    return  # the run ends here
