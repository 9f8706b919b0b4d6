"""Data loaders: torch's with PopTorch's rules, and one in another process with a ring of buffers.

What only the real one's users meet by chance is met always here: a buffer is scribbled over as
soon as its item was followed by the next one.
"""

import atexit
import contextlib
import multiprocessing
import os
import signal
import warnings

import torch as _torch
import torch.multiprocessing
from torch.utils import data as _data

from poptorch import _enums
from poptorch._errors import failure
from poptorch.options import Options

_SCRIBBLE = 0xAA


class DataLoader(_data.DataLoader):
    def __init__(self, options, dataset, batch_size=1, shuffle=None, num_workers=0, drop_last=True,
                 persistent_workers=None, auto_distributed_partitioning=True,
                 mode=_enums.DataLoaderMode.Sync, async_options=None, rebatched_worker_size=None,
                 batch_sampler=None, **kwargs):
        self._accessor = None
        self._ring_rows = None
        if batch_sampler is not None:
            raise NotImplementedError("the double has no batch samplers")
        assert isinstance(options, Options)
        options._freeze()
        self._options = options
        steps = (options.device_iterations * options.replication_factor
                 * options.Training.gradient_accumulation)
        self._combined = None if batch_size is None else batch_size * steps
        processes = options.Distributed.numProcesses
        if auto_distributed_partitioning and processes > 1:
            assert self._combined is not None
            assert not shuffle or "random_seed" in options.toDict()
            share = self._combined * (len(dataset) // (self._combined * processes))
            first = share * int(os.environ["OMPI_COMM_WORLD_RANK"])
            dataset = _data.Subset(dataset, range(first, first + share))
        if not drop_last and self._combined and len(dataset) % self._combined:
            warnings.warn("The number of elements is not divisible and drop_last=False",
                          stacklevel=2)
        self._keeps_rest = not drop_last
        rows = self._combined
        if mode == _enums.DataLoaderMode.AsyncRebatched or (
                mode == _enums.DataLoaderMode.Async and not drop_last and (rows or 1) > 1):
            mode, drop_last, self._ring_rows = _enums.DataLoaderMode.Async, False, rows
            if rebatched_worker_size is not None:
                assert rebatched_worker_size <= rows
                rows = rebatched_worker_size
        super().__init__(dataset, batch_size=rows, shuffle=bool(shuffle), num_workers=num_workers,
                         drop_last=drop_last, persistent_workers=num_workers > 0
                         if persistent_workers is None else persistent_workers, **kwargs)
        if mode == _enums.DataLoaderMode.Async:
            assert "rebatched_size" not in (async_options or {})
            self._accessor = AsynchronousDataAccessor(
                self, **(async_options or {}), rebatched_size=self._ring_rows)

    def __len__(self):
        if self._ring_rows is None:
            return super().__len__()
        whole, rest = divmod(len(self.dataset), self._ring_rows)
        return whole + bool(rest and self._keeps_rest)

    @property
    def combinedBatchSize(self):
        return self._combined

    @property
    def options(self):
        return self._options

    def terminate(self):
        if self._accessor is not None:
            self._accessor.terminate()

    def __del__(self):
        self.terminate()

    def __iter__(self):
        return super().__iter__() if self._accessor is None else iter(self._accessor)


class AsynchronousDataAccessor:
    def __init__(self, dataset, buffer_size=3, miss_sleep_time_in_ms=0.1, load_indefinitely=True,
                 early_preload=False, sharing_strategy=_enums.SharingStrategy.ForkServer,
                 rebatched_size=None):
        self._process = None
        if isinstance(dataset, DataLoader):
            if dataset._accessor is not None:
                raise failure("the DataLoader has an accessor of its own")
            assert dataset.drop_last or rebatched_size is not None or (
                dataset.combinedBatchSize in (None, 1)), "drop_last=False needs rebatched_size"
        assert rebatched_size is None or rebatched_size > 1
        if early_preload or sharing_strategy != _enums.SharingStrategy.ForkServer:
            raise NotImplementedError("not of the double")
        atexit.register(self.terminate)
        self._length, self._indefinitely = len(dataset), load_indefinitely
        self._began, self._used, self._ended, self._slot = False, False, False, None
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch"])  # once, and not in each of its processes
        self._pipe, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(
            theirs, dataset, buffer_size, rebatched_size,
            getattr(dataset, "_keeps_rest", False), load_indefinitely,
            os.environ.get("POPTORCH_DOUBLE_WORKERS")))
        process.start()
        self._process = process
        theirs.close()
        try:
            self._buffers, self._single = self._pipe.recv()
        except EOFError:
            self._buffers = None
        if self._buffers is None:
            raise failure("AsynchronousDataAccessor worker thread failed to start")

    def terminate(self):
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            self._pipe.send(("stop",))
        for kind in (None, signal.SIGINT, signal.SIGKILL):
            if kind is not None and process.is_alive():
                os.kill(process.pid, kind)
            process.join(10)
        self._pipe.close()

    def __len__(self):
        return self._length

    def __iter__(self):
        assert self._process is not None
        if self._began and not self._used:
            return self  # the real one takes what was not begun for what is wanted
        if self._began and not (self._ended and self._indefinitely):
            self._pipe.send(("reset",))
            while self._received()[0] != "reset":
                pass
        self._pipe.send(("start",))
        self._began, self._used, self._ended, self._slot = True, False, False, None
        return self

    def __next__(self):
        assert self._process is not None
        if self._ended:
            raise StopIteration
        if self._slot is not None:
            for buffer in self._buffers:
                buffer[self._slot].fill_(_SCRIBBLE)
            self._pipe.send(("free", self._slot))
            self._slot = None
        what, *rest = self._received()
        if what == "end":
            self._ended = True
            raise StopIteration
        self._slot, rows = rest
        self._used = True
        item = [buffer[self._slot][:rows] for buffer in self._buffers]
        return item[0] if self._single else item

    def _received(self):
        while not self._pipe.poll(0.2):
            if not self._process.is_alive() and not self._pipe.poll(0):
                assert self._process.exitcode == 0, "An error occurred in the data fetcher"
                raise SystemError("the real one waits for ever: its process has left quietly")
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            return self._received() if self._process.exitcode == 0 else self._failed()

    def _failed(self):
        raise AssertionError("An error occurred in the data fetcher")


class _Reset(Exception):
    """The host requests another pass."""


def _serve(pipe, loader, buffer_size, rows, keep_rest, indefinitely, start_method):
    if start_method:  # else as the real one: from a server of its own, which imports torch again
        multiprocessing.set_start_method(start_method, force=True)
    with contextlib.suppress(KeyboardInterrupt):  # as the real one, which leaves its host waiting
        _Server(pipe, loader, buffer_size, rows, keep_rest).serve(indefinitely)


class _Server:
    """The other process: fills the ring, at most as far as the host has read."""

    def __init__(self, pipe, loader, buffer_size, rows, keep_rest):
        self.pipe, self.loader, self.rows, self.keep_rest = pipe, loader, rows, keep_rest
        self.size = buffer_size
        self.free = list(range(buffer_size))
        self.starts = 0
        self.buffers, self.single = None, False

    def serve(self, indefinitely):
        items = self.items()
        first = next(items, None)  # before it is requested
        if first is None:
            raise failure("The Dataset is empty")
        self.buffers = [
            tensor.new_zeros((self.size, self.rows or len(tensor), *tensor.shape[1:]))
            .share_memory_() for tensor in first]
        self.pipe.send((self.buffers, self.single))
        ahead = [first]
        while True:
            try:
                self.one_pass(ahead, items)
                self.wait(lambda: self.starts)
                self.starts -= 1
                self.pipe.send(("end",))
                if not indefinitely:
                    self.wait(lambda: False)
                ahead, items = [], self.items()
            except _Reset:
                self.free, self.starts = list(range(self.size)), 0
                ahead, items = [], self.items()
                self.pipe.send(("reset",))

    def one_pass(self, ahead, items):
        while True:
            item = ahead.pop() if ahead else next(items, None)
            if item is None:
                return
            self.wait(lambda: self.free)
            slot = self.free.pop(0)
            for buffer, tensor in zip(self.buffers, item):
                assert buffer.shape[2:] == tensor.shape[1:]
                assert len(tensor) == buffer.shape[1] or self.keep_rest
                buffer[slot][:len(tensor)].copy_(tensor)
            self.wait(lambda: self.starts)
            self.pipe.send(("item", slot, len(item[0])))

    def wait(self, ready):
        """Answer the host until `ready`."""
        while self.pipe.poll(0) or not ready():
            what, *more = self.pipe.recv()
            if what == "stop":
                raise SystemExit(0)
            if what == "reset":
                raise _Reset
            if what == "start":
                self.starts += 1
            if what == "free":
                self.free += more

    def items(self):
        """Flat lists of tensors; where they are rebatched, of so many rows."""
        spare = None
        for item in self.loader:
            self.single = isinstance(item, _torch.Tensor)
            item = [item] if self.single else list(item)
            assert all(isinstance(tensor, _torch.Tensor) for tensor in item)
            if self.rows is None:
                yield item
                continue
            spare = item if spare is None else [_torch.cat(pair) for pair in zip(spare, item)]
            while len(spare[0]) >= self.rows:
                yield [tensor[:self.rows] for tensor in spare]
                spare = [tensor[self.rows:] for tensor in spare]
        if spare is not None and len(spare[0]) and self.keep_rest:
            yield spare
