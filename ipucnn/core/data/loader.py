"""The host side: decode, transform and batch images while the device computes."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Deque,
    Generator,
    Iterable,
    Iterator,
    List,
    Optional,
    Set,
    Tuple,
)

from ipucnn.core.data import ImageDataset
from ipucnn.core.data.images import eval_transform
from ipucnn.core.errors import DataError, PluginError, UsageError
from ipucnn.core.machine import usable_cores

if TYPE_CHECKING:
    from types import TracebackType

    import torch

    Transform = Callable[[torch.Tensor, int], torch.Tensor]
    # entries of `indices` used up with it, the index, and the pixels to come
    Queue = Deque[Tuple[int, int, Future[Any]]]

MAX_REPORTED = 100
"""How many skipped samples a loader remembers by name; all are counted."""


@dataclass(frozen=True)
class Batch:
    """Images ready for a session, and what they are.

    Attributes:
        images: `(n, 3, size, size)`, uint8, channels last in memory.
        indices: index of each image in the dataset.
        labels: class of each image; None where the dataset does not know it.
        names: name of each image.
        consumed: how many of the loader's indices are used up with this batch, from the start of
            the iteration, those of bad images included: the rest begins with the next batch.
    """

    images: torch.Tensor
    indices: List[int]
    labels: List[Optional[int]]
    names: List[str]
    consumed: int = 0

    def __len__(self) -> int:
        return len(self.indices)


class HostLoader:
    """Batches of a dataset's images, prepared ahead by threads.

    Decoding and resizing release the interpreter lock, so threads are enough. About two batches are
    prepared ahead, so memory does not grow with the number of images. Batches come in the order of
    `indices`, the same for any number of workers; only the last may be short. Use the loader as a
    context manager, or close it: its threads then end after the images they are working on.

    Args:
        dataset: where images come from.
        input_size: height and width of the model's input, in pixels.
        batch_size: images per batch.
        indices: which images, in which order; may be a generator.
        workers: decoding threads; the cores this process may use when None.
        skip_bad: leave out images that cannot be read instead of raising. The following images
            move up, so that batches stay full; a bad image is counted once.
        transform: makes an image of the dataset one of the input size, given the image and its
            index; runs in a worker, for every image. What evaluation does when None.
        bad: images that are known to be bad; with `skip_bad` they are left out untried.

    Attributes:
        skipped: name and reason of skipped images, the first `MAX_REPORTED`.
        skipped_count: number of images skipped.

    Raises:
        UsageError: fewer than one worker or image per batch.
    """

    def __init__(self, dataset: ImageDataset, input_size: int, batch_size: int,
                 indices: Iterable[int], workers: Optional[int] = None,
                 skip_bad: bool = False, transform: Optional[Transform] = None,
                 bad: Iterable[int] = ()) -> None:
        self.workers = usable_cores() if workers is None else workers
        if self.workers < 1 or batch_size < 1:
            raise UsageError(f"{self.workers} workers and batches of {batch_size} cannot be",
                             "the smallest value of both is 1")
        self.dataset = dataset
        self.input_size = input_size
        self.batch_size = batch_size
        self.indices = indices
        self.skip_bad = skip_bad
        self.skipped: List[Tuple[str, str]] = []
        self._transform = transform
        self._bad: Set[int] = set(bad) if skip_bad else set()
        self._running: Optional[Generator[Batch, None, None]] = None

    @property
    def skipped_count(self) -> int:
        """Number of images skipped so far."""
        return len(self._bad)

    @property
    def bad(self) -> Tuple[int, ...]:
        """Sorted indices of the images skipped so far, those known before included."""
        return tuple(sorted(self._bad))

    def __iter__(self) -> Iterator[Batch]:
        """Go through the images.

        Raises:
            DataError: an image of the next batch cannot be read; with `skip_bad`, none can.
        """
        self.close()
        self._running = self._batches()
        return self._running

    def close(self) -> None:
        """End the iteration that is under way, and its threads."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def __enter__(self) -> HostLoader:
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def _batches(self) -> Generator[Batch, None, None]:
        todo = enumerate(self.indices, start=1)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="ipucnn-decode")
        queue: Queue = deque()
        yielded = 0
        try:
            while True:
                batch = self._next_batch(todo, pool, queue)
                if batch is None:
                    break
                yielded += 1
                yield batch
            if self.skipped and not yielded:
                name, reason = self.skipped[0]
                raise DataError(f"none of the images can be read; the first is {name!r}: {reason}")
        finally:
            for _, _, future in queue:
                future.cancel()
            pool.shutdown(wait=True)

    def _next_batch(self, todo: Iterator[Tuple[int, int]], pool: ThreadPoolExecutor,
                    queue: Queue) -> Optional[Batch]:
        indices: List[int] = []
        pixels: List[Any] = []
        consumed = 0
        while len(indices) < self.batch_size:
            self._fill(todo, pool, queue)
            if not queue:
                break
            consumed, index, future = queue.popleft()
            try:
                pixels.append(future.result())
                indices.append(index)
            except DataError as error:
                if not self.skip_bad:
                    raise
                self._skip(index, error)
        if not indices:
            return None
        return Batch(self._stack(pixels), indices, [self.dataset.label(i) for i in indices],
                     [self.dataset.name(i) for i in indices], consumed)

    def _fill(self, todo: Iterator[Tuple[int, int]], pool: ThreadPoolExecutor,
              queue: Queue) -> None:
        while len(queue) < 2 * self.batch_size + self.workers:
            if len(self._bad) >= len(self.dataset):
                return  # nothing is left, however often `indices` comes round
            entry = next(todo, None)
            if entry is None:
                return
            consumed, index = entry
            if index not in self._bad:
                queue.append((consumed, index, pool.submit(self._prepare, index)))

    def _prepare(self, index: int) -> Any:
        """Return the pixels of a sample as an array `(size, size, 3)`; runs in a worker.

        numpy does the copying: torch would start a team of threads of its own in every worker.
        """
        import numpy

        image = self.dataset.image(index)
        if image.dim() != 3 or image.shape[0] != 3 or image.element_size() != 1:
            raise PluginError(f"the dataset gave {image.dtype} {tuple(image.shape)} for "
                              f"{self.dataset.name(index)!r}, expected uint8 (3, height, width)")
        if self._transform is not None:
            image = self._transform(image, index)
        elif not self.dataset.ready:
            image = eval_transform(image, self.input_size)
        if tuple(image.shape[1:]) != (self.input_size, self.input_size):
            raise PluginError(f"the dataset gave {self.dataset.name(index)!r} with "
                              f"{image.shape[2]}x{image.shape[1]} pixels, expected the input size, "
                              f"{self.input_size}")
        return numpy.ascontiguousarray(image.permute(1, 2, 0).numpy())

    def _stack(self, pixels: List[Any]) -> torch.Tensor:
        import numpy
        import torch

        return torch.from_numpy(numpy.stack(pixels)).permute(0, 3, 1, 2)

    def _skip(self, index: int, error: DataError) -> None:
        if index not in self._bad and len(self.skipped) < MAX_REPORTED:
            self.skipped.append((self.dataset.name(index), error.message))
        self._bad.add(index)


def order(length: int, total: int) -> Iterator[int]:
    """Return the indices of a run over `total` samples of a dataset with `length` images.

    It begins again as often as needed, as the old application did with its few sample images.
    """
    return (sample % length for sample in range(total))
