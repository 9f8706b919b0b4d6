"""Measures the host: the steps of preparing an image, the loader, and plain decoding."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy

from ipucnn.core.errors import DataError
from ipucnn.data import ImageDataset
from ipucnn.data.dataset_checks import file_of
from ipucnn.data.loader import MAX_REPORTED, Loader, none_readable
from ipucnn.data.prepare import Preparation

STEPS = ("read", "decode", "transform", "collate")
"""The steps of preparing an image: read the file, decode it, crop and resize it to the input size,
and write it into the batch, normalised where the host normalises."""

_TASK = 32  # images per task of a thread, as in the loader
_ROWS = 64  # of the batch that is written; larger than the processor's caches

Report = Callable[[int], None]
"""Called with the number of images done since the last call."""


class NoLimitError(Exception):
    """Plain decoding cannot be measured; the message states the reason."""


@dataclass
class Steps:
    """Timings of the steps in one thread.

    Attributes:
        seconds: by step, for all images.
        readable: indices of the images.
        skipped: name and reason of those that could not be read, the first `MAX_REPORTED`.
        skipped_count: their number.
        files: the dataset gives encoded images; otherwise `decode` is its generation of pixels.
    """

    seconds: Dict[str, float] = field(default_factory=lambda: dict.fromkeys(STEPS, 0.0))
    readable: List[int] = field(default_factory=list)
    skipped: List[Tuple[str, str]] = field(default_factory=list)
    skipped_count: int = 0
    files: bool = True

    def rates(self) -> Dict[str, Optional[float]]:
        """Return images per second by step; None where a step is absent."""
        return {name: len(self.readable) / seconds if seconds > 0 and (
            self.files or name != "read") else None for name, seconds in self.seconds.items()}


def steps(prepare: Preparation, indices: Sequence[int], skip_bad: bool, report: Report) -> Steps:
    """Prepare images in this thread, and time every step of it.

    Args:
        prepare: the preparation that a worker executes.
        indices: which images.
        skip_bad: leave out images that cannot be read.
        report: called for every image.

    Raises:
        DataError: an image cannot be read; with `skip_bad`, none can.
    """
    import torch

    found = Steps()
    teams = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _go_through(prepare, indices, skip_bad, report, found)
    finally:
        torch.set_num_threads(teams)
    if not found.readable:
        raise none_readable(found.skipped)
    return found


def _go_through(prepare: Preparation, indices: Sequence[int], skip_bad: bool, report: Report,
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
        report(1)


def step_by_step(prepare: Preparation, index: int, out: Any) -> Tuple[bool, List[float]]:
    """Execute `prepare` for epoch 0 in steps; return whether there was a file, and the seconds.

    Args:
        prepare: the preparation, executed here step by step.
        index: of the image.
        out: the array to write into.
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


def loading(loader: Loader, report: Report) -> float:
    """Return the seconds that a loader takes for all of its batches."""
    begin = time.perf_counter()
    with loader:
        for batch in loader:
            report(len(batch))
    return time.perf_counter() - begin


def bare_decoding(dataset: ImageDataset, indices: Sequence[int], threads: int,
                  report: Report) -> float:
    """Return the seconds that libjpeg-turbo takes to decode the same files in full.

    Raises:
        NoLimitError: an image is not a JPEG file in RGB or grey.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="ipucnn-bare")
    begin = time.perf_counter()
    tasks = [pool.submit(_decode, dataset, indices[first:first + _TASK])
             for first in range(0, len(indices), _TASK)]
    try:
        for task in tasks:
            report(task.result())
        return time.perf_counter() - begin
    finally:
        for task in tasks:
            task.cancel()
        pool.shutdown(wait=True)


def _decode(dataset: ImageDataset, indices: Sequence[int]) -> int:
    import simplejpeg

    for index in indices:
        data = file_of(dataset, index)
        if data is None:
            raise NoLimitError("the dataset gives pixels, not files")
        try:
            simplejpeg.decode_jpeg(data)
        except ValueError as error:
            raise NoLimitError(f"{dataset.name(index)!r} is not a JPEG file that libjpeg-turbo "
                               "converts to RGB") from error
    return len(indices)
