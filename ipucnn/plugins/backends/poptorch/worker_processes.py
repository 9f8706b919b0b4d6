"""Loads images in worker processes through `poptorch.DataLoader`.

PopTorch's loader is created once per session, and its processes serve every epoch: the next order
is in memory shared with the host. ipucnn determines the order; a short batch is padded with
blanks, which the host removes, so that no mode of PopTorch encounters a short batch, drops one, or
falls back to another mode because of it.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from multiprocessing import resource_tracker
from typing import (
    Any,
    Callable,
    Dict,
    Generator,
    Iterator,
    List,
    Optional,
    Tuple,
)

import numpy
import poptorch
import torch

from ipucnn.core.errors import DataError, IpucnnError, UsageError
from ipucnn.core.execution.feeding import Fed, FeedRequest
from ipucnn.core.exit_codes import ending_signals
from ipucnn.data.loader import Block, Entry, Loader
from ipucnn.data.prepare import Preparation
from ipucnn.plugins.backends.poptorch.options import (
    DEFAULT_REBATCH_SIZE,
    LOADER_MODES,
    PopTorchOptions,
)

LONGEST_PASS = 1 << 21
"""Samples in one pass of PopTorch's loader; longer runs are several passes."""

_BLANK = -1

Array = Any  # of numpy

def _shared(length: int) -> torch.Tensor:
    numbers = torch.zeros(length, dtype=torch.int32)
    numbers.share_memory_()  # type: ignore[no-untyped-call]
    return numbers


class _Order:
    """The next order, in shared memory: the sampler of PopTorch's loader."""

    def __init__(self, capacity: int) -> None:
        self._indices = _shared(capacity)
        self._state = _shared(3)  # samples, epoch, whether to stop
        self._host = os.getpid()

    def set(self, indices: Array, length: int, epoch: int) -> None:
        """Set the order of the next pass: `indices`, then blanks up to `length`."""
        self._indices[:len(indices)] = torch.from_numpy(indices)
        self._indices[len(indices):length] = _BLANK
        self._state[0], self._state[1] = length, epoch

    def stop(self) -> None:
        """Cancel pending work."""
        self._state[2] = 1

    @property
    def stopped(self) -> bool:
        return bool(self._state[2])

    def __len__(self) -> int:
        return int(self._state[0])

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)
        if os.getpid() != self._host:  # child processes of this one will ignore them, too
            for number in _left_to_the_host():
                signal.signal(number, signal.SIG_IGN)

    def __iter__(self) -> Iterator[Tuple[int, int]]:
        epoch = int(self._state[1])
        return ((epoch, int(self._indices[place])) for place in range(len(self)))


class _Samples(torch.utils.data.Dataset[Any]):
    """Pixels of `(epoch, index)`, and whether preparing them failed."""

    def __init__(self, prepare: Preparation, order: _Order) -> None:
        self._prepare, self._order = prepare, order
        self._blank = torch.zeros(prepare.shape, dtype=getattr(torch, prepare.type))

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, entry: Tuple[int, int]) -> Tuple[torch.Tensor, bool]:
        epoch, index = entry
        if index == _BLANK or self._order.stopped:
            return self._blank, False
        try:
            pixels = torch.empty_like(self._blank)
            self._prepare(index, epoch, pixels.numpy())
            return pixels, False
        except Exception:  # the host retries it and reports the error
            return self._blank, True


def _left_to_the_host() -> List[signal.Signals]:
    """Return the signals that end a command, but for SIGTERM, with which the host ends workers."""
    return [number for number in ending_signals() if number is not signal.SIGTERM]


@contextmanager
def _interrupts_left_to_the_host() -> Iterator[None]:
    """Block the signals that a terminal or a scheduler sends to every process, in new processes.

    The host handles it after the start: it may finish a step and save, and PopTorch waits
    indefinitely for a process that exited by itself.
    """
    resource_tracker.ensure_running()  # its start would end the blocking
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _left_to_the_host())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@dataclass
class Workers:
    """The processes behind one `poptorch.DataLoader`; they start with the first pass.

    Attributes:
        prepare: prepares a sample; in the asynchronous modes it is pickled.
        batch_size: samples of one item, a host call's.
        count: worker processes.
        mode: one of PopTorch's `LOADER_MODES`.
        rebatch_size: samples that a worker prepares at a time in mode `rebatched`.
    """

    prepare: Preparation
    batch_size: int
    count: int
    mode: str
    rebatch_size: int
    _order: Any = field(default=None, init=False, compare=False)
    _loader: Any = field(default=None, init=False, compare=False)
    _busy: bool = field(default=False, init=False, compare=False)

    @property
    def capacity(self) -> int:
        """Maximum samples of one pass: whole batches."""
        return -(-LONGEST_PASS // self.batch_size) * self.batch_size

    def load(self, indices: Array, epoch: int) -> Iterator[Tuple[torch.Tensor, torch.Tensor]]:
        """Yield whole batches: pixels `(batch_size, size, size, 3)`, and which of them failed.

        Args:
            indices: at most `capacity`; the last batch is filled up.
            epoch: for the transform.

        Raises:
            IpucnnError: a process ended, or there is no memory to share.
            UsageError: the dataset cannot be pickled.
        """
        if self._busy:  # a pass was abandoned, and its work is still in progress
            self.close()
        count = -(-len(indices) // self.batch_size)
        if self._loader is None:
            self._order = _Order(self.capacity)
        self._order.set(indices, count * self.batch_size, epoch)
        self._busy = True
        with self._errors(), _interrupts_left_to_the_host():
            if self._loader is None:
                self._loader = self._started()
            items = iter(self._loader)
        for left in reversed(range(count)):
            with self._errors():
                pixels, failed = next(items)
                if self.mode != "sync":  # the next item may overwrite this one
                    pixels, failed = pixels.clone(), failed.clone()
                if not left and next(items, None) is not None:
                    raise RuntimeError("it returned more than was requested")
            self._busy = bool(left)
            yield pixels, failed

    def close(self) -> None:
        """End the processes."""
        loader, self._loader, self._busy = self._loader, None, False
        if loader is None:
            return
        self._order.stop()
        loader.terminate()  # the process of the asynchronous modes
        iterator = getattr(loader, "_iterator", None)
        if iterator is not None:  # what torch keeps for the next pass, in mode `sync`
            iterator._shutdown_workers()

    def _started(self) -> Any:
        # With one iteration, replica and accumulation PopTorch's combined batch is the batch
        # size, which ipucnn has computed.
        options: Any = {}
        mode = poptorch.DataLoaderMode.Sync
        if self.mode != "sync":
            mode = poptorch.DataLoaderMode.Async
            # otherwise it starts the next pass by itself, before the order is known
            options["async_options"] = {"load_indefinitely": False}
        if self.mode == "rebatched" and self.batch_size > 1:
            mode = poptorch.DataLoaderMode.AsyncRebatched
            options["rebatched_worker_size"] = min(self.rebatch_size, self.batch_size)
        before = multiprocessing.active_children()
        try:
            return poptorch.DataLoader(
                poptorch.Options(), _Samples(self.prepare, self._order), self.batch_size,
                num_workers=self.count, drop_last=True, persistent_workers=True,
                auto_distributed_partitioning=False, mode=mode, sampler=self._order, **options)
        except BaseException as error:  # also an interrupt: only this code has the processes
            for process in multiprocessing.active_children():
                if process not in before:
                    process.terminate()
                    process.join()
            if isinstance(error, (pickle.PicklingError, AttributeError, TypeError)):
                kind = type(self.prepare.dataset).__name__
                raise UsageError(
                    f"the dataset ({kind}) cannot be sent to another process: {error}",
                    "'--dataloader-mode sync' and 'threads' need not send it") from error
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, AssertionError, OSError, EOFError, StopIteration,
                poptorch.Error) as error:
            text = str(getattr(error, "message", "") or error).strip()
            line = (text.splitlines() or [type(error).__name__])[0]
            raise IpucnnError(
                f"the processes of '--dataloader-mode {self.mode}' failed: {line}",
                "memory may be short, also that which they share (/dev/shm): try fewer "
                "'--dataloader-worker', or '--dataloader-mode threads'; a script must call ipucnn "
                "below \"if __name__ == '__main__':\"") from error


class PopTorchLoader(Loader):
    """Batches prepared ahead by the worker processes of a session; see `Loader`.

    Args:
        workers_for: returns the session's processes, given what they prepare, the batch size and
            their number.
        arguments: see `Loader`.
    """

    def __init__(self, workers_for: Callable[[Preparation, int, int], Workers],
                 *arguments: Any, **how: Any) -> None:
        super().__init__(*arguments, **how)
        self._workers_for = workers_for

    def blocks(self, todo: Iterator[Entry]) -> Generator[Block, None, None]:
        """Yield whole batches; see `Loader.blocks`."""
        workers = self._workers_for(self.prepare, self.batch_size, self.workers)
        size = self.batch_size
        while True:
            part = numpy.fromiter(chain.from_iterable(islice(todo, workers.capacity)),
                                  dtype=numpy.int64).reshape(-1, 2)
            if not len(part):
                return
            for number, (pixels, failed) in enumerate(workers.load(part[:, 1], self.epoch)):
                entries = part[number * size:(number + 1) * size].tolist()
                yield self._tried_again(Block(pixels[:len(entries)].numpy(), entries), failed)

    def _tried_again(self, block: Block, failed: torch.Tensor) -> Block:
        """Return a block after retrying what failed in a worker, to report its error."""
        for row in failed.nonzero().flatten().tolist():
            try:
                self.prepare(block.entries[row][1], self.epoch, block.pixels[row])
            except DataError as error:
                block.failed[row] = error
        return block


class FedByProcesses(Fed):
    """A session that loads images through PopTorch's data loader if its options select it."""

    _options: PopTorchOptions
    _workers: Optional[Workers] = None

    def feed(self, request: FeedRequest) -> Optional[Loader]:
        """Return PopTorch's loader, or None for threads or none; see `Fed.feed`."""
        if self._options.loading not in LOADER_MODES or request.how.get("workers") == 0:
            return None
        return PopTorchLoader(self._workers_for, request.dataset, request.preprocessing,
                              request.batch_size, request.indices, **request.how)

    def stop_loading(self) -> None:
        """End the worker processes."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _workers_for(self, prepare: Preparation, batch_size: int, count: int) -> Workers:
        wanted = Workers(prepare, batch_size, count, self._options.loading,
                         self._options.dataloader_rebatch_size or DEFAULT_REBATCH_SIZE)
        if self._workers is None or self._workers != wanted:
            self.stop_loading()
            self._workers = wanted
        return self._workers
