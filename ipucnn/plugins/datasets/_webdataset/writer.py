"""Writes shards: `ipucnn data convert --to webdataset`."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, Deque, Dict, Optional, Set

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.files import make_folder, require_file, write_text
from ipucnn.core.machine import thread_count
from ipucnn.core.progress import Progress
from ipucnn.data.formats.convert import Writer, Written, difference
from ipucnn.data.formats.convert_options import ConvertOptions
from ipucnn.data.formats.samples import Samples
from ipucnn.plugins.datasets._webdataset import shard_metadata as metadata
from ipucnn.plugins.datasets._webdataset.record import ANOTHER, FILE, Finished, Record
from ipucnn.plugins.datasets._webdataset.tar import ShardFile, cannot_write, is_partial, members

LOCK = ".conversion.lock"
"""Lock file, held by the process that writes."""

REPORT_EVERY = 0.2
"""Seconds between two reports of progress."""


class Shards(Writer):
    """Writes tar archives and, when they are complete, `metadata.json`."""

    def write(self, target: str, samples: Dict[str, Samples], options: ConvertOptions,
              origin: Dict[str, Any], progress: Progress) -> Dict[str, Written]:
        """Write the samples; see `Writer.write`."""
        from filelock import FileLock, Timeout

        _check(target)
        folder = Path(make_folder(target, "--target"))
        lock = FileLock(str(folder / LOCK))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UsageError(f"another process is writing to {target!r}",
                             "wait for it, or choose another folder with '--target'") from None
        except OSError as error:
            raise cannot_write(str(folder), error) from error
        try:
            found = _complete(folder, origin)
            if found is None:
                found = _Conversion(folder, samples, options, origin, progress).run()
            return found
        finally:
            with suppress(OSError):
                (folder / LOCK).unlink()
            lock.release()


def _check(target: str) -> None:
    """Raise an error if a folder contains anything but the shards of an unfinished conversion."""
    try:
        names = os.listdir(target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"target {target!r} cannot be used: "
                         f"{(error.strerror or str(error)).lower()}", ANOTHER) from error
    ours = FILE in names or metadata.FILE in names
    other = [name for name in names if name not in (FILE, LOCK, metadata.FILE) and not (
        ours and (is_partial(name)
                  or any(metadata.is_shard(name, split) for split in metadata.SPLITS)))]
    if other:
        raise UsageError(f"target {target!r} is not empty: it holds {min(other)!r}", ANOTHER)


def _complete(folder: Path, origin: Dict[str, Any]) -> Optional[Dict[str, Written]]:
    """Return the result of a finished conversion of the same origin, or None."""
    path = folder / metadata.FILE
    try:
        require_file(path)
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {str(path)!r}: {error}", ANOTHER) from error
    made = metadata.read(text, str(path))
    found = "it was made otherwise" if made.origin is None or made.shards is None else (
        difference(made.origin, origin))
    if found:
        raise UsageError(f"target {str(folder)!r} holds another dataset: {found}", ANOTHER)
    assert made.shards is not None
    for shards in made.shards.values():
        for shard in shards:
            place = folder / shard.name
            if not place.is_file() or place.stat().st_size != shard.bytes:
                raise DataError(f"{str(place)!r} is missing or has another size",
                                "remove the folder and convert again")
    with suppress(FileNotFoundError):
        (folder / FILE).unlink()  # the last step, which a killed conversion did not reach
    return {split: Written(len(shards), made.lengths[split], sum(s.bytes for s in shards),
                           origin["source"][split]["images"] - made.lengths[split],
                           made.lengths[split])
            for split, shards in made.shards.items() if split in origin["source"]}


class _Conversion:
    """The remaining work of a conversion, and its progress."""

    def __init__(self, folder: Path, samples: Dict[str, Samples], options: ConvertOptions,
                 origin: Dict[str, Any], progress: Progress) -> None:
        self._folder = folder
        self._samples = samples
        self._options = options
        self._origin = origin
        self._progress = progress
        self._record = Record(folder, origin)
        self._workers = options.execution.workers or thread_count()
        self._stopped = threading.Event()
        self._counting = threading.Lock()
        self._done = 0
        self._next_report = 0.0
        self._total = sum(map(len, samples.values()))

    def run(self) -> Dict[str, Written]:
        before = {split: self._count(split) for split in self._samples}
        try:
            self._remove_left()
            with ThreadPoolExecutor(self._workers, thread_name_prefix="ipucnn-convert") as pool:
                try:
                    if self._options.destination.bytes_per_shard is None:
                        self._shards_by_count(pool)
                    else:
                        self._shards_by_size(pool, self._options.destination.bytes_per_shard)
                except BaseException:
                    self._stopped.set()
                    raise
            self._finish()
        except OSError as error:
            raise cannot_write(str(self._folder), error) from error
        finally:
            self._record.close()
        return {split: Written(
            len(self._record.of(split)), self._count(split),
            sum(done.shard.bytes for done in self._record.of(split)),
            len(part) - self._count(split), before[split])
            for split, part in self._samples.items()}

    def _count(self, split: str) -> int:
        return sum(done.shard.samples for done in self._record.of(split))

    def _remove_left(self) -> None:
        finished = self._record.names()
        for name in os.listdir(self._folder):
            shard = any(metadata.is_shard(name, split) for split in metadata.SPLITS)
            if is_partial(name) or (shard and name not in finished):
                (self._folder / name).unlink()

    def _shards_by_count(self, pool: ThreadPoolExecutor) -> None:
        """Write shards in parallel, one per thread: the start of each is known."""
        size = self._options.destination.samples_per_shard
        waiting: Set[Future[None]] = set()
        for split, part in self._samples.items():
            for number, begin in enumerate(range(0, len(part), size)):
                end = min(begin + size, len(part))
                if self._record.get(split, number):
                    self._advance(end - begin)
                else:
                    waiting.add(pool.submit(self._shard, split, number, begin, end))
        while waiting:
            finished, waiting = wait(waiting, REPORT_EVERY, FIRST_COMPLETED)
            for future in finished:
                future.result()
            self._tell()

    def _shard(self, split: str, number: int, begin: int, end: int) -> None:
        if self._stopped.is_set():
            return
        with ShardFile(self._folder, metadata.shard_name(split, number)) as file:
            for position in range(begin, end):
                sample = self._samples[split].sample(position)
                if self._stopped.is_set():
                    return
                if sample is not None:
                    file.add(position, members(sample))
                self._advance(1)
            self._record.add(Finished(split, number, begin, end, file.finish()))

    def _shards_by_size(self, pool: ThreadPoolExecutor, limit: int) -> None:
        """Write shards one after the other: the end of each depends on its samples' sizes."""
        for split, part in self._samples.items():
            begin = number = 0
            done = self._record.get(split, number)
            while done:
                self._advance(done.end - begin)
                begin, number = done.end, number + 1
                done = self._record.get(split, number)
            ahead = _Ahead(pool, part, begin, 4 * self._workers)
            while begin < len(part):
                begin = self._shard_of_size(split, number, begin, ahead, limit)
                number += 1

    def _shard_of_size(self, split: str, number: int, begin: int, ahead: _Ahead,
                       limit: int) -> int:
        """Write a shard and return the position of the first sample that is not in it."""
        with ShardFile(self._folder, metadata.shard_name(split, number)) as file:
            position = begin
            while position < len(self._samples[split]):
                parts = ahead.first()
                if parts is not None:
                    if file.samples and (file.samples >= self._options.destination.samples_per_shard
                                         or file.size_with(parts) > limit):
                        break
                    file.add(position, parts)
                ahead.take()
                position += 1
                self._advance(1)
                self._tell()
            self._record.add(Finished(split, number, begin, position, file.finish()))
        return position

    def _advance(self, count: int) -> None:
        with self._counting:
            self._done += count

    def _tell(self) -> None:
        if time.monotonic() >= self._next_report:
            self._next_report = time.monotonic() + REPORT_EVERY
            self._progress("convert", self._done, self._total)

    def _finish(self) -> None:
        """Write the metadata, which completes the dataset."""
        for split in self._samples:
            if not self._count(split):
                raise DataError(f"none of the {split} images can be read",
                                "'ipucnn data verify' names what is wrong with them")
        finished = {split: self._record.of(split) for split in self._samples}
        datasets = [part.dataset for part in self._samples.values()]
        write_text(str(self._folder / metadata.FILE), metadata.Metadata(
            lengths={split: self._count(split) for split in self._samples},
            format=self._options.images.format,
            transforms={split: tuple(map(str, part.steps))
                        for split, part in self._samples.items()},
            classes=next((d.class_names for d in datasets if d.class_names), ()),
            shards={split: tuple(done.shard for done in of) for split, of in finished.items()},
            boxes=any(dataset.has_boxes for dataset in datasets),
            image_ids=any(dataset.has_image_ids for dataset in datasets),
            shuffle=self._options.destination.shuffle, seed=self._options.destination.seed,
            image_quality=next((part.quality for part in self._samples.values()
                                if part.quality is not None), None),
            checksum=metadata.checksum(done.shard.md5 for of in finished.values() for done in of),
            origin=self._origin).as_json())
        self._record.remove()


class _Ahead:
    """Members of a split's samples in order, prefetched by threads."""

    def __init__(self, pool: ThreadPoolExecutor, part: Samples, begin: int, depth: int) -> None:
        self._pool = pool
        self._part = part
        self._positions = iter(range(begin, len(part)))
        self._queue: Deque[Future[Optional[Dict[str, bytes]]]] = deque()
        for _ in range(depth):
            self._submit()

    def first(self) -> Optional[Dict[str, bytes]]:
        """Return the members of the next sample; None when it is skipped."""
        return self._queue[0].result()

    def take(self) -> None:
        """Advance to the next sample."""
        self._queue.popleft()
        self._submit()

    def _submit(self) -> None:
        position = next(self._positions, None)
        if position is not None:
            self._queue.append(self._pool.submit(self._members, position))

    def _members(self, position: int) -> Optional[Dict[str, bytes]]:
        sample = self._part.sample(position)
        return None if sample is None else members(sample)
