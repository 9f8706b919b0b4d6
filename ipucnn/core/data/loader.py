"""The host side: decode, transform and batch images while the device computes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
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
    Sequence,
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

    Transform = Callable[[torch.Tensor, int, int], torch.Tensor]
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


@dataclass(frozen=True)
class Preparation:
    """Makes a sample ready for a model; the same whichever thread or process does it.

    Attributes:
        dataset: where images come from.
        input_size: height and width of the model's input, in pixels.
        transform: makes an image of the dataset one of the input size, given the image, its index
            and the epoch. What evaluation does when None.
    """

    dataset: ImageDataset
    input_size: int
    transform: Optional[Transform] = None

    def __call__(self, index: int, epoch: int = 0) -> Any:
        """Return the pixels of a sample as an array `(size, size, 3)`.

        numpy does the copying: torch would start a team of threads of its own in every worker.

        Raises:
            DataError: the image cannot be read.
            PluginError: the dataset gave something that is no image of the right kind or size.
        """
        import numpy

        image = self.dataset.image(index)
        if image.dim() != 3 or image.shape[0] != 3 or image.element_size() != 1:
            raise PluginError(f"the dataset gave {image.dtype} {tuple(image.shape)} for "
                              f"{self.dataset.name(index)!r}, expected uint8 (3, height, width)")
        if self.transform is not None:
            image = self.transform(image, index, epoch)
        elif not self.dataset.ready:
            image = eval_transform(image, self.input_size)
        if tuple(image.shape[1:]) != (self.input_size, self.input_size):
            raise PluginError(f"the dataset gave {self.dataset.name(index)!r} with "
                              f"{image.shape[2]}x{image.shape[1]} pixels, expected the input size, "
                              f"{self.input_size}")
        return numpy.ascontiguousarray(image.permute(1, 2, 0).numpy())


class Loader(ABC):
    """Batches of a dataset's images, in the order of `indices`; only the last may be short.

    What it gives is the same for any kind and number of workers. Use it as a context manager, or
    close it.

    Args:
        dataset: where images come from.
        input_size: height and width of the model's input, in pixels.
        batch_size: images per batch.
        indices: which images, in which order; may be a generator.
        workers: how many work for it; the cores this process may use when None.
        skip_bad: leave out images that cannot be read instead of raising. The following images
            move up, so that batches stay full; a bad image is counted once.
        transform: see `Preparation`; runs in a worker, for every image.
        bad: images that are known to be bad; with `skip_bad` they are left out untried.
        epoch: for the transform.
        part: other instances have the rest of the images, so that none of these being readable is
            no error yet.

    Attributes:
        skipped: name and reason of skipped images, the first `MAX_REPORTED`.
        skipped_count: number of images skipped.

    Raises:
        UsageError: fewer than one worker or image per batch.
    """

    def __init__(self, dataset: ImageDataset, input_size: int, batch_size: int,
                 indices: Iterable[int], workers: Optional[int] = None,
                 skip_bad: bool = False, transform: Optional[Transform] = None,
                 bad: Iterable[int] = (), epoch: int = 0, part: bool = False) -> None:
        self.workers = usable_cores() if workers is None else workers
        if self.workers < 1 or batch_size < 1:
            raise UsageError(f"{self.workers} workers and batches of {batch_size} cannot be",
                             "the smallest value of both is 1")
        self.dataset = dataset
        self.prepare = Preparation(dataset, input_size, transform)
        self.epoch = epoch
        self.batch_size = batch_size
        self.indices = indices
        self.skip_bad = skip_bad
        self.part = part
        self.skipped: List[Tuple[str, str]] = []
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
        self._running = self._checked()
        return self._running

    def close(self) -> None:
        """End the iteration that is under way."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    @abstractmethod
    def batches(self, todo: Iterator[Tuple[int, int]]) -> Generator[Batch, None, None]:
        """Yield the batches, `batch` of the images and `skip` of those that cannot be read.

        Args:
            todo: as `(consumed, index)`, what is left to do at any time; it ends when no image of
                the dataset can be read, however often `indices` comes round.
        """

    def batch(self, images: torch.Tensor, entries: Sequence[Tuple[int, int]]) -> Batch:
        """Return a batch.

        Args:
            images: `(n, size, size, 3)`, as `prepare` gives them.
            entries: their `(consumed, index)`.
        """
        indices = [index for _, index in entries]
        return Batch(images.permute(0, 3, 1, 2), indices, [self.dataset.label(i) for i in indices],
                     [self.dataset.name(i) for i in indices], entries[-1][0])

    def skip(self, index: int, error: DataError) -> None:
        """Leave out an image that cannot be read.

        Raises:
            DataError: bad images are not to be skipped.
        """
        if not self.skip_bad:
            raise error
        if index not in self._bad and len(self.skipped) < MAX_REPORTED:
            self.skipped.append((self.dataset.name(index), error.message))
        self._bad.add(index)

    def _todo(self) -> Iterator[Tuple[int, int]]:
        for consumed, index in enumerate(self.indices, start=1):
            if len(self._bad) >= len(self.dataset):
                return
            if index not in self._bad:
                yield consumed, index

    def _checked(self) -> Generator[Batch, None, None]:
        yielded = 0
        with closing(self.batches(self._todo())) as batches:
            for batch in batches:
                yielded += 1
                yield batch
        if self.skipped and not yielded and not self.part:
            raise none_readable(self.skipped)


class HostLoader(Loader):
    """Batches prepared ahead by threads.

    Decoding and resizing release the interpreter lock, so threads are enough. About two batches are
    prepared ahead, so memory does not grow with the number of images. Its threads end after the
    images they are working on.
    """

    def batches(self, todo: Iterator[Tuple[int, int]]) -> Generator[Batch, None, None]:
        """Yield the batches; see `Loader.batches`."""
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="ipucnn-decode")
        queue: Queue = deque()
        try:
            while True:
                batch = self._next_batch(todo, pool, queue)
                if batch is None:
                    return
                yield batch
        finally:
            for _, _, future in queue:
                future.cancel()
            pool.shutdown(wait=True)

    def _next_batch(self, todo: Iterator[Tuple[int, int]], pool: ThreadPoolExecutor,
                    queue: Queue) -> Optional[Batch]:
        import numpy
        import torch

        entries: List[Tuple[int, int]] = []
        pixels: List[Any] = []
        while len(entries) < self.batch_size:
            for consumed, index in islice(
                    todo, 2 * self.batch_size + self.workers - len(queue)):
                queue.append((consumed, index, pool.submit(self.prepare, index, self.epoch)))
            if not queue:
                break
            consumed, index, future = queue.popleft()
            try:
                pixels.append(future.result())
                entries.append((consumed, index))
            except DataError as error:
                self.skip(index, error)
        return self.batch(torch.from_numpy(numpy.stack(pixels)), entries) if entries else None


def none_readable(skipped: Sequence[Sequence[str]]) -> DataError:
    """Return the error of a run all of whose images were skipped, given names and reasons."""
    name, reason = skipped[0]
    return DataError(f"none of the images can be read; the first is {name!r}: {reason}")


def order(length: int, total: int) -> Iterator[int]:
    """Return the indices of a run over `total` samples of a dataset with `length` images.

    It begins again as often as needed, as the old application did with its few sample images.
    """
    return (sample % length for sample in range(total))
