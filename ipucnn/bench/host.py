"""What is measured of the host: the steps of preparing an image, the loader, bare decoding."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy

from ipucnn.core.errors import DataError
from ipucnn.data import ImageDataset
from ipucnn.data.loader import MAX_REPORTED, Loader, none_readable
from ipucnn.data.prepare import Preparation

STEPS = ("read", "decode", "transform", "collate")
"""Of preparing an image: the bytes of its file, their pixels, the part of them that the model takes
at its size, and these in their place in the batch, where the host normalises also normalised."""

_TASK = 32  # images of a thread at a time, as in the loader
_ROWS = 64  # of the batch that is written; more than the processor keeps at hand

Tell = Callable[[int], None]
"""Called with the images done since it was called last."""


class NoLimitError(Exception):
    """There is nothing to decode barely; the text says why."""


@dataclass
class Steps:
    """What one thread took.

    Attributes:
        seconds: by step, of all images.
        readable: indices of the images.
        skipped: name and reason of those that could not be read, the first `MAX_REPORTED`.
        files: the dataset gives encoded images; without, its making of pixels is `decode`.
    """

    seconds: Dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    readable: List[int] = field(default_factory=list)
    skipped: List[Tuple[str, str]] = field(default_factory=list)
    skipped_count: int = 0
    files: bool = True

    def rates(self) -> Dict[str, Optional[float]]:
        """Return images per second by step; None of a step that there is not."""
        return {name: len(self.readable) / seconds if seconds > 0 and (
            self.files or name != "read") else None for name, seconds in self.seconds.items()}


def steps(prepare: Preparation, indices: Sequence[int], skip_bad: bool, tell: Tell) -> Steps:
    """Prepare images in this thread, and time every step of it.

    Args:
        prepare: what a worker does.
        indices: which images.
        skip_bad: leave out images that cannot be read.
        tell: told of every image.

    Raises:
        DataError: an image cannot be read; with `skip_bad`, none can.
    """
    import torch

    found = Steps()
    teams = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _go_through(prepare, indices, skip_bad, tell, found)
    finally:
        torch.set_num_threads(teams)
    if not found.readable:
        raise none_readable(found.skipped)
    return found


def _go_through(prepare: Preparation, indices: Sequence[int], skip_bad: bool, tell: Tell,
                found: Steps) -> None:
    batch = numpy.empty((_ROWS, *prepare.shape), dtype=prepare.type)
    for place, index in enumerate(indices):
        try:
            files, seconds = step_by_step(prepare, index, batch[place % _ROWS])
        except DataError as error:
            if not skip_bad:
                raise
            found.skipped_count += 1
            if len(found.skipped) < MAX_REPORTED:
                found.skipped.append((prepare.dataset.name(index), error.message))
        else:
            found.readable.append(index)
            found.files = found.files and files
            for name, value in zip(STEPS, seconds):
                found.seconds[name] += value
        tell(1)


def step_by_step(prepare: Preparation, index: int, out: Any) -> Tuple[bool, List[float]]:
    """Do what `prepare` does for the first epoch; return whether there was a file, and the seconds.

    Args:
        prepare: what is repeated here step by step.
        index: of the image.
        out: where it is written.
    """
    clock = [time.perf_counter()]
    data = prepare.read(index)
    clock.append(time.perf_counter())
    drawn = prepare.drawn(index, 0)
    pixels, size = prepare.decoded(data, index, drawn)
    clock.append(time.perf_counter())
    pixels = prepare.transformed(pixels, size, drawn)
    clock.append(time.perf_counter())
    prepare.put(pixels, index, out)
    clock.append(time.perf_counter())
    return data is not None, [end - begin for begin, end in zip(clock, clock[1:])]


def loading(loader: Loader, tell: Tell) -> float:
    """Return the seconds in which a loader gives all of its batches."""
    begin = time.perf_counter()
    with loader:
        for batch in loader:
            tell(len(batch))
    return time.perf_counter() - begin


def bare_decoding(dataset: ImageDataset, indices: Sequence[int], threads: int,
                  tell: Tell) -> float:
    """Return the seconds in which libjpeg-turbo decodes the same files, whole and nothing else.

    Raises:
        NoLimitError: an image is not a JPEG file in RGB or grey.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ipucnn-bare")
    begin = time.perf_counter()
    tasks = [pool.submit(_decode, dataset, indices[first:first + _TASK])
             for first in range(0, len(indices), _TASK)]
    try:
        for task in tasks:
            tell(task.result())
        return time.perf_counter() - begin
    finally:
        for task in tasks:
            task.cancel()
        pool.shutdown(wait=True)


def _decode(dataset: ImageDataset, indices: Sequence[int]) -> int:
    import simplejpeg

    for index in indices:
        data = dataset.encoded(index)
        if data is None:
            raise NoLimitError("the dataset gives pixels, not files")
        try:
            simplejpeg.decode_jpeg(data)
        except ValueError as error:
            raise NoLimitError(f"{dataset.name(index)!r} is no JPEG file that libjpeg-turbo makes "
                               "RGB of") from error
    return len(indices)
