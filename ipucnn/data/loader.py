"""The base class of data loaders: it batches what workers prepare, and skips bad images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import closing
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Generator,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
    Tuple,
)

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.machine import thread_count
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.data import ImageDataset, Label
from ipucnn.data.labels import label_of
from ipucnn.data.prepare import Preparation, Transform

if TYPE_CHECKING:
    from types import TracebackType

    import numpy

    from ipucnn.data.pixel_cache import PixelCache

MAX_REPORTED = 100
"""Maximum number of skipped samples that a loader reports by name; all are counted."""

Entry = Tuple[int, int]
"""A loader's work item: the number of indices consumed including this one, and the index."""


@dataclass(frozen=True)
class Block:
    """Samples prepared by workers.

    Attributes:
        pixels: array `(n, size, size, 3)`, or what else a loader's `joined` and `images` take.
        entries: the work item of each.
        failed: rows that could not be prepared, and the errors.
    """

    pixels: Any
    entries: List[Entry]
    failed: Dict[int, DataError] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Images ready for a session, with their indices and labels.

    Attributes:
        images: `(n, 3, size, size)`, in the loader's pixel format, channels last in memory: a
            tensor, or an array according to the loader's settings.
        indices: index of each image in the dataset.
        labels: class of each image, or a tuple of its classes if it can have several; None if it
            is unknown.
        consumed: number of the loader's indices consumed up to and including this batch, bad
            images included; the next batch continues from there.
    """

    images: Any
    indices: List[int]
    labels: List[Optional[Label]]
    consumed: int = 0

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class LoaderSettings:
    """How a loader prepares images.

    Attributes:
        workers: number of workers, 0 for the calling thread; the cores this process may use when
            None.
        skip_bad: whether to skip images that cannot be read instead of raising an error. The next
            images replace them, so that batches are full; a bad image is counted once.
        transform: see `Preparation`; runs in a worker, for every image.
        finish: whether a bad image that is not skipped ends the batches after the images before it,
            in a short batch, so that these are not lost; if not, it ends them before its batch.
        bad: images known to be bad; with `skip_bad` they are skipped without an attempt.
        epoch: for the transform.
        part: whether other instances load further images, so that it is not an error if none of
            these images can be read.
        pixels: the pixel format, one of `PIXELS`; workers convert to it.
        arrays: whether batches are numpy arrays instead of tensors; torch is then not imported.
        cache: a cache of decoded pixels of the dataset.
    """

    workers: Optional[int] = None
    skip_bad: bool = False
    finish: bool = False
    transform: Optional[Transform] = None
    bad: Iterable[int] = ()
    epoch: int = 0
    part: bool = False
    pixels: str = "uint8"
    arrays: bool = False
    cache: Optional[PixelCache] = None


class Loader(ABC):
    """Batches of a dataset's images, in the order of `indices`; only the last may be short.

    The batches are the same for any kind and number of workers. Use it as a context manager, or
    close it.

    Args:
        dataset: where images come from.
        preprocessing: of the network.
        batch_size: images per batch.
        indices: which images, in which order; may be a generator.
        **settings: those of `LoaderSettings`.

    Attributes:
        skipped: name and reason of skipped images, the first `MAX_REPORTED`.
        skipped_count: number of images skipped.

    Raises:
        UsageError: fewer than no worker or one image per batch.
    """

    def __init__(self, dataset: ImageDataset, preprocessing: Preprocessing, batch_size: int,
                 indices: Iterable[int], **settings: Any) -> None:
        how = LoaderSettings(**settings)
        self.workers = thread_count() if how.workers is None else how.workers
        if self.workers < 0 or batch_size < 1:
            raise UsageError(f"{self.workers} workers and batches of {batch_size} are not possible",
                             "the smallest values are 0 and 1")
        self.dataset = dataset
        self.prepare = Preparation(dataset, preprocessing, how.transform, how.pixels,
                                   how.cache)
        self.epoch = how.epoch
        self.batch_size = batch_size
        self.indices = indices
        self.skip_bad = how.skip_bad
        self.finish = how.finish
        self.part = how.part
        self.arrays = how.arrays
        self.skipped: List[Tuple[str, str]] = []
        # by image: number of indices consumed up to its failure, 0 if it was known before
        self._bad: Dict[int, int] = dict.fromkeys(how.bad, 0) if how.skip_bad else {}
        self._running: Optional[Generator[Batch, None, None]] = None
        self._begun: Optional[Generator[Block, None, None]] = None

    @property
    def skipped_count(self) -> int:
        """Number of images skipped so far."""
        return len(self._bad)

    @property
    def bad(self) -> Tuple[int, ...]:
        """Sorted indices of the images skipped so far, including those known to be bad."""
        return tuple(sorted(self._bad))

    def bad_within(self, consumed: int) -> List[int]:
        """Return the bad images among the first indices, and those known to be bad, sorted.

        Unlike `bad`, they do not depend on where in the order the loader has begun.

        Args:
            consumed: number of indices, as in `Batch.consumed`.
        """
        return sorted(image for image, place in self._bad.items() if place <= consumed)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches.

        Raises:
            DataError: an image of the next batch, or with `finish` the next image, cannot be read;
                with `skip_bad`, none can.
        """
        if self._begun is None:
            self.close()
        self._running = self._checked()
        return self._running

    def begin(self) -> None:
        """Start preparing the first batches of the next iteration, if threads prepare them."""
        self.close()
        self._begun = self.blocks(self._todo())

    def close(self) -> None:
        """Stop the current iteration."""
        if self._running is not None:
            self._running.close()
            self._running = None
        if self._begun is not None:
            self._begun.close()
            self._begun = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    @abstractmethod
    def blocks(self, todo: Iterator[Entry]) -> Generator[Block, None, None]:
        """Yield the samples in order, in blocks of any size.

        Args:
            todo: the remaining work as `(consumed, index)`; it ends when no image of the dataset
                can be read, even if `indices` repeats without end.
        """

    def _batches(self) -> Generator[Batch, None, None]:
        """Yield the blocks' samples in batches without gaps for skipped samples."""
        size = self.batch_size
        spare: Optional[Tuple[Any, List[Entry]]] = None
        failure: Optional[DataError] = None
        begun, self._begun = self._begun, None
        with closing(begun or self.blocks(self._todo())) as blocks:
            for block in blocks:
                if self.finish and not self.skip_bad and block.failed:
                    row, failure = min(block.failed.items())
                    pixels, entries = block.pixels[:row], block.entries[:row]
                else:
                    pixels, entries = self._readable(block)
                if spare is not None:
                    pixels, entries = self.joined(spare[0], pixels), spare[1] + entries
                while len(entries) >= size:
                    yield self._batch(pixels[:size], entries[:size])
                    pixels, entries = pixels[size:], entries[size:]
                spare = (pixels, entries) if entries else None
                if failure is not None:
                    break
        if spare is not None:
            yield self._batch(*spare)
        if failure is not None:
            raise failure

    def _readable(self, block: Block) -> Tuple[Any, List[Entry]]:
        for row in sorted(block.failed):
            self.skip(block.entries[row], block.failed[row])
        if not block.failed:
            return block.pixels, block.entries
        kept = [row for row in range(len(block.entries)) if row not in block.failed]
        return block.pixels[kept], [block.entries[row] for row in kept]

    def joined(self, first: Any, second: Any) -> Any:
        """Return the pixels of two blocks as one."""
        import numpy

        return numpy.concatenate([first, second])

    def images(self, pixels: Any) -> Any:
        """Return pixels as a batch of images, `(n, 3, size, size)`."""
        images = pixels.transpose(0, 3, 1, 2)
        return images if self.arrays else _tensor(images)

    def _batch(self, pixels: Any, entries: Sequence[Entry]) -> Batch:
        indices = [index for _, index in entries]
        return Batch(self.images(pixels), indices,
                     [label_of(self.dataset, index) for index in indices], entries[-1][0])

    def skip(self, entry: Entry, error: DataError) -> None:
        """Skip an image that cannot be read.

        Raises:
            DataError: bad images may not be skipped.
        """
        if not self.skip_bad:
            raise error
        consumed, index = entry
        image = self.dataset.original(index)
        if image not in self._bad and len(self.skipped) < MAX_REPORTED:
            self.skipped.append((self.dataset.name(index), error.message))
        self._bad.setdefault(image, consumed)

    def _todo(self) -> Iterator[Entry]:
        for consumed, index in enumerate(self.indices, start=1):
            if len(self._bad) >= len(self.dataset):
                return
            if self.dataset.original(index) not in self._bad:
                yield consumed, index

    def _checked(self) -> Generator[Batch, None, None]:
        yielded = 0
        with closing(self._batches()) as batches:
            for batch in batches:
                yielded += 1
                yield batch
        if self.skipped and not yielded and not self.part:
            raise none_readable(self.skipped)


def _tensor(images: numpy.ndarray[Any, Any]) -> Any:
    import torch

    return torch.from_numpy(images)


def none_readable(skipped: Sequence[Sequence[str]]) -> DataError:
    """Return the error of a run all of whose images were skipped, given names and reasons."""
    name, reason = skipped[0]
    return DataError(f"none of the images can be read; the first is {name!r}: {reason}")


def order(length: int, total: int) -> Iterator[int]:
    """Return the indices of a run over `total` samples of a dataset with `length` images.

    The dataset is repeated as often as needed, as in the old application with its few samples.
    """
    return (sample % length for sample in range(total))
