"""Copies images to a CUDA device ahead of use, and logits back while the next are computed.

While the device computes one batch, the next one is copied in a separate stream. This needs pinned
memory, because copies from other memory block the calling thread. Pinned memory is reused only
after the event at the end of its copy, because the call that starts a copy returns before it is
complete.
"""

from __future__ import annotations

import logging
from collections import deque
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Deque, Generator, Iterator, List, NamedTuple, Optional, Tuple

import torch

from ipucnn.core.execution.feeding import Fed, FeedRequest
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.data.host_loader import HostLoader
from ipucnn.data.loader import Block, Entry
from ipucnn.data.workers import Memory, Threads
from ipucnn.plugins.backends.torch.devices import Device
from ipucnn.plugins.backends.torch.errors import device_errors

log = logging.getLogger("ipucnn.torch")


class PinnedMemory(Memory):
    """Pinned batch memory, which a CUDA device reads directly."""

    _warned = False

    def new(self, shape: Tuple[int, ...], type: str) -> Any:
        """Return an array in pinned memory, or in other memory if that is not available."""
        try:
            return torch.empty(shape, dtype=getattr(torch, type), pin_memory=True).numpy()
        except RuntimeError as error:
            if not self._warned:
                log.warning("images are copied to the device from memory that is not pinned, which "
                            "takes longer: %s", str(error).strip().splitlines()[0])
            self._warned = True
            return super().new(shape, type)


class Copy(NamedTuple):
    """A started copy to the device.

    Attributes:
        host: its source.
        device: its target.
        done: the event behind it.
    """

    host: torch.Tensor
    device: torch.Tensor
    done: Any


class Answer(NamedTuple):
    """A started copy of logits to the host.

    Attributes:
        host: its target, in pinned memory.
        done: the event behind it.
    """

    host: torch.Tensor
    done: Any


def begun_answer(logits: torch.Tensor, place: torch.device) -> Answer:
    """Start to copy logits to the host, in the stream that computes them."""
    host = torch.empty(logits.shape, dtype=logits.dtype, pin_memory=True)
    host.copy_(logits, non_blocking=True)
    done = torch.cuda.Event()  # type: ignore[no-untyped-call]
    done.record(torch.cuda.current_stream(place))
    return Answer(host, done)


class Lane:
    """A stream of a CUDA device for copies.

    Args:
        place: the device.
    """

    def __init__(self, place: torch.device) -> None:
        self._place = place
        self._stream = torch.cuda.Stream(place)  # type: ignore[no-untyped-call]

    def begin(self, host: torch.Tensor) -> Copy:
        """Start a copy to the device."""
        # the end of a stream makes the device before it current again, which with CUDA 12 takes
        # memory of that one for a context; the end of a device does not
        with torch.cuda.device(self._place), torch.cuda.stream(self._stream):
            device = host.to(self._place, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)
        return Copy(host, device, done)

    def use(self, copy: Copy) -> None:
        """Make the computations that follow wait for a copy; the calling thread does not wait."""
        current = torch.cuda.current_stream(self._place)
        current.wait_event(copy.done)
        # its memory belongs to the stream of copies, and must not be reused before these end
        copy.device.record_stream(current)


class DeviceLoader(HostLoader):
    """Batches on a device; the next one is copied there while the last one is used.

    Args:
        request: of the session.
        memory: for the batches, pinned.
        lane: for the copies.
        micro_batch: of the session, for errors.
    """

    def __init__(self, request: FeedRequest, memory: Memory, lane: Lane,
                 micro_batch: int) -> None:
        super().__init__(request.dataset, request.preprocessing, request.batch_size,
                         request.indices, memory=memory, **request.how)
        self._lane = lane
        self._micro_batch = micro_batch
        self._coming: Deque[Tuple[Block, List[Future[None]]]] = deque()
        self._leaving: Deque[Tuple[torch.Tensor, Any]] = deque()

    def blocks(self, todo: Iterator[Entry]) -> Generator[Block, None, None]:
        """Return whole batches on the device; see `HostLoader.blocks`."""
        self._coming.clear()  # those of an iteration that was begun and not continued
        return self._copied(super().blocks(todo))

    def _copied(self, blocks: Iterator[Block]) -> Generator[Block, None, None]:
        ahead: Optional[Copy] = None
        try:
            for block in blocks:
                if self._coming:
                    self._coming.popleft()
                with device_errors(self._micro_batch):
                    copy = ahead or self._lane.begin(torch.from_numpy(block.pixels))
                    # the next one is not waited for: this thread has something to compute
                    ahead = self._lane.begin(torch.from_numpy(self._coming[0][0].pixels)) if \
                        self._coming and all(task.done() for task in self._coming[0][1]) else None
                    self._lane.use(copy)
                    self._release()
                self._leaving.append((copy.host, copy.done))
                yield Block(copy.device, block.entries, block.failed)
        finally:
            self._coming.clear()
            if ahead is not None:
                self._leaving.append((ahead.host, ahead.done))
            with suppress(RuntimeError):  # of a GPU that failed, which would hide the cause
                for _, done in self._leaving:
                    done.synchronize()
            self._leaving.clear()

    def _submitted(self, threads: Threads,
                   entries: List[Entry]) -> Tuple[Block, List[Future[None]]]:
        submitted = super()._submitted(threads, entries)
        self._coming.append(submitted)
        return submitted

    def joined(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return two blocks' pixels as one; see `Loader.joined`."""
        return torch.cat([first, second])

    def images(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return pixels as a batch of images; see `Loader.images`."""
        return pixels.permute(0, 3, 1, 2)

    def _release(self) -> None:
        """Release memory after its copy is complete."""
        while self._leaving and self._leaving[0][1].query():
            self._leaving.popleft()


class Prefetching(Fed):
    """A session whose images are copied ahead to a CUDA device; on a CPU nothing is copied."""

    _device: Device
    _plan: ExecutionPlan
    _pinned: Optional[PinnedMemory] = None
    _lane: Optional[Lane] = None

    def feed(self, request: FeedRequest) -> Optional[Any]:
        """Return a loader of batches on the device; see `Fed.feed`."""
        if self._device.place.type != "cuda" or self._plan.synthetic:
            return None
        self._pinned = self._pinned or PinnedMemory()
        self._lane = self._lane or Lane(self._device.place)
        return DeviceLoader(request, self._pinned, self._lane, self._plan.micro_batch)
