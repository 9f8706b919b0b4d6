"""A dataset of samples in shards, with random access by index."""

from __future__ import annotations

import hashlib
import os
import re
import time
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import numpy

from ipucnn.core.errors import DataError, NoSplitError
from ipucnn.data import Box, DatasetRequest, ImageDataset, check_classes
from ipucnn.data.images import MAX_BYTES, decode
from ipucnn.plugins.datasets._webdataset.counts import counted
from ipucnn.plugins.datasets._webdataset.kept import Kept
from ipucnn.plugins.datasets._webdataset.shard_index import Unreadable
from ipucnn.plugins.datasets._webdataset.shard_metadata import FILE, Metadata, Shard, is_shard, read
from ipucnn.plugins.datasets._webdataset.shard_samples import TENSORS, Record, Records, read_records
from ipucnn.plugins.datasets._webdataset.source import Folder, Source, source_of
from ipucnn.plugins.datasets._webdataset.tensors import pixels_of

if TYPE_CHECKING:
    import torch

    from ipucnn.plugins.datasets.webdataset import WebDatasetOptions

BUFFER = 5000
"""Largest distance in samples by which shuffling moves a sample after shards are shuffled."""

SLOW_SECONDS = 5.0
"""Threshold above which a note on the duration of counting is shown."""

_OLD_CLASSES = 1000  # the old converter wrote ImageNet, without class names
_MOST_SHARDS = 256  # open at once: a process may open 1024 files on many systems
_HINT = "'--skip-bad-samples' leaves such samples out; 'ipucnn data verify' checks all shards"


class ShardedImages(ImageDataset):
    """Images in shards. A shard is opened when one of its images is first requested.

    It is thread-safe. It can be pickled, and used after a fork.

    Attributes:
        made_for: height and width of its images when they are `ready`.

    Args:
        source: where the shards come from.
        shards: in the order of the indices.
        class_names: class names in the order of labels; empty leaves labels out.
        numbers: the label of each class of the shards, where it differs from the stored one.
    """

    made_for: Tuple[int, int] = (0, 0)

    def __init__(self, source: Source, shards: Sequence[Shard], class_names: Tuple[str, ...] = (),
                 numbers: Sequence[int] = ()) -> None:
        self._source, self._shards = source, tuple(shards)
        self._ends = list(accumulate(shard.samples for shard in shards))
        self.class_names, self._numbers = class_names, numbers
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._following: Dict[int, int] = {}  # each shard's successor in the order of the epoch
        self._last = -2
        mean = max(1, len(self) // len(self._shards))
        # the shards of one shuffle buffer are in use at a time; twice that, for reading ahead
        self._kept: Kept[Records] = Kept(min(2 * BUFFER // mean + 8, _MOST_SHARDS))

    def __getstate__(self) -> Dict[str, Any]:
        return {name: value for name, value in vars(self).items()
                if name not in ("_kept", "_following")}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def __len__(self) -> int:
        return self._ends[-1]

    def image(self, index: int) -> torch.Tensor:
        """Return image `index`; see `ImageDataset.image`."""
        record = self._usable(index)
        content, name = self._content(index, record), self.name(index)
        image = (pixels_of if record.extension in TENSORS else decode)(content, name)
        if self.ready and tuple(image.shape[1:]) != self.made_for:
            raise self._bad(index, f"it has {image.shape[2]}x{image.shape[1]} pixels and was to be "
                                   f"written with {'x'.join(map(str, self.made_for))}")
        return image

    def encoded(self, index: int) -> Optional[bytes]:
        """Return the file of image `index`, or None where its shard stores pixels."""
        record = self._usable(index)
        return None if record.extension in TENSORS else self._content(index, record)

    def order(self, seed: int, epoch: int) -> numpy.ndarray[Any, Any]:
        """Return an order in which few shards are in use at once.

        Shards are shuffled, then their samples, each by less than `BUFFER` positions.
        """
        random = numpy.random.default_rng((seed, epoch))
        sizes = numpy.diff(self._ends, prepend=0)
        shards = random.permutation(len(sizes))
        self._following = dict(zip(shards[:-1].tolist(), shards[1:].tolist()))
        places = numpy.arange(len(self))
        before = numpy.cumsum(sizes[shards]) - sizes[shards]  # in the shuffled sequence
        moved = numpy.asarray(self._ends)[shards] - sizes[shards] - before
        sequence = places + numpy.repeat(moved, sizes[shards])
        # stable, so that ties are ordered the same way on all machines
        shuffled = numpy.argsort(places + random.uniform(0, BUFFER, len(places)), kind="stable")
        result: numpy.ndarray[Any, Any] = sequence[shuffled]
        return result

    def fingerprint(self) -> str:
        """Return a digest of the listed shards, wherever they are; see `ImageDataset`."""
        listing = [(shard.name, shard.samples, shard.bytes, shard.md5) for shard in self._shards]
        return hashlib.sha256(repr((self.class_names, listing)).encode()).hexdigest()

    def version(self) -> str:
        """Return a digest of the shards' sizes and times; empty for those of a server."""
        text = self._source.version(self._shards)
        return hashlib.sha256(text.encode()).hexdigest() if text else ""

    def name(self, index: int) -> str:
        """Return `<folder>/<shard>/<name in it>`, with `#<position>` in an unreadable shard."""
        shard, place = self._located(index)
        shown = self._source.shown(self._shards[shard].name)
        try:
            return f"{shown}/{self._records(shard).samples[place].name}"
        except Unreadable:
            return f"{shown}/#{place}"

    def label(self, index: int) -> Optional[int]:
        """Return the class of image `index`.

        Raises:
            DataError: its label is not one of the classes.
        """
        return self._label(index, self._record(index)) if self.class_names else None

    def _label(self, index: int, record: Record) -> int:
        fault = record.fault_of_label(len(self._numbers or self.class_names))
        if fault:
            raise self._bad(index, fault)
        assert record.label is not None
        return self._numbers[record.label] if self._numbers else record.label

    def box(self, index: int) -> Optional[Box]:
        """Return the box of image `index`."""
        return self._record(index).box

    def image_id(self, index: int) -> Optional[int]:
        """Return the id of image `index`."""
        return self._record(index).image_id

    def first_shard(self) -> Sequence[Record]:
        """Return the samples of the first shard.

        Raises:
            DataError: it cannot be read.
        """
        try:
            return self._records(0).samples
        except Unreadable as error:
            raise DataError(f"shard {self._source.shown(self._shards[0].name)!r} cannot be read: "
                            f"{error}", error.hint or _HINT) from error

    def _usable(self, index: int) -> Record:
        record = self._record(index)
        if self.class_names:  # samples without a label are treated like samples without an image
            self._label(index, record)
        return record

    def _content(self, index: int, record: Record) -> bytes:
        if record.image.size > MAX_BYTES:
            raise self._bad(index, f"it is larger than {MAX_BYTES:,} bytes")
        try:
            return self._records(self._located(index)[0]).file.read(record.image)
        except Unreadable as error:
            raise self._bad(index, str(error), error.hint) from error

    def _record(self, index: int) -> Record:
        shard, place = self._located(index)
        try:
            record = self._records(shard).samples[place]
        except Unreadable as error:
            raise DataError(
                f"shard {self._source.shown(self._shards[shard].name)!r} cannot be read for its "
                f"sample {place}: {error}", error.hint or _HINT) from error
        if record.fault:
            raise self._bad(index, record.fault)
        return record

    def _bad(self, index: int, reason: str, hint: str = "") -> DataError:
        return DataError(f"cannot read sample {self.name(index)!r}: {reason}", hint or _HINT)

    def _located(self, index: int) -> Tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = bisect_right(self._ends, index)
        return shard, index - (self._ends[shard] - self._shards[shard].samples)

    def _records(self, shard: int) -> Records:
        if self._process != os.getpid():  # a thread of the parent may have held a lock
            self._begin()
        return self._kept(shard, lambda: self._opened(shard))

    def _opened(self, place: int) -> Records:
        shard = self._shards[place]
        try:
            records = read_records(self._source.open(shard))
        except DataError as error:
            raise Unreadable(error.message, error.hint) from error
        in_sequence, self._last = self._last == place - 1, place
        following = self._following.get(place, place + 1 if in_sequence else len(self._shards))
        if following < len(self._shards):
            self._source.ahead(self._shards[following])
        if len(records.samples) != shard.samples:
            raise Unreadable(f"it holds {len(records.samples)} samples and was written with "
                             f"{shard.samples}")
        return records


def make(request: DatasetRequest, options: WebDatasetOptions) -> ImageDataset:
    """Return one split; for an evaluation of the whole dataset, its only split.

    Raises:
        DataError: there is no such folder or split, a shard is missing, truncated or (of the old
            converter) damaged, or the classes differ from the model's.
    """
    source = source_of(request, options)
    metadata = read(source.text(FILE), source.shown(FILE))
    split = _split(request, metadata, source)
    notes: List[str] = []
    if metadata.shards is None:
        shards = _found(source, split, metadata.lengths[split], notes)
    else:
        shards = [shard for shard in metadata.shards[split] if shard.samples]
        source.check(shards)
    if options.webdataset_memory_cache_ratio:
        why_not = source.read_in(shards[:int(options.webdataset_memory_cache_ratio * len(shards))])
        if why_not:
            notes.append(f"'--webdataset-memory-cache-ratio' has no effect: {why_not}")
    dataset = ShardedImages(source, shards)
    complete = metadata.classes and metadata.boxes is not None
    first = () if complete else dataset.first_shard()
    if metadata.classes or any(record.label is not None for record in first):
        dataset = ShardedImages(source, shards, *_classes(request, metadata, source))
    dataset.has_boxes = any(record.box for record in first) if metadata.boxes is None \
        else metadata.boxes
    dataset.has_image_ids = metadata.image_ids
    if request.split != "train":
        dataset.made_for = (request.input_size, request.input_size)
        dataset.ready = _is_ready(metadata.transforms.get(split, ()), request.input_size, notes)
    if metadata.format == "img" and not metadata.transforms.get(split):
        dataset.made_from = str((metadata.origin or {}).get("data", ""))
    dataset.notes = tuple(notes)
    dataset.split = split
    return dataset


def _split(request: DatasetRequest, metadata: Metadata, source: Source) -> str:
    split = "train" if request.split == "train" else "validation"
    if request.split is None and not metadata.lengths["validation"]:
        split = "train"
    if not metadata.lengths[split]:
        raise NoSplitError(f"there are no {split} samples in {source.shown('')!r}",
                        "name another folder with '--data-dir'" if split == "train" else
                        "name their folder with '--validation-data-dir', or add '--no-validation'")
    return split


def _found(source: Source, split: str, length: int, notes: List[str]) -> List[Shard]:
    """Return the shards of a folder written by the old converter."""
    if not isinstance(source, Folder):
        raise DataError(f"{source.shown(FILE)!r} does not list the shards",
                        "copy the folder here, or write it again with 'ipucnn data convert'")
    begin = time.monotonic()
    present = source.names()
    names = sorted((name for name in present if is_shard(name, split)),
                   key=lambda name: (len(name), name))
    shards = [shard for shard in counted(source, names) if shard.samples]
    seconds = time.monotonic() - begin
    if seconds > SLOW_SECONDS:
        notes.append(f"counting the samples of {len(names)} shards took {seconds:.0f} s; the next "
                     "start skips this")
    total = sum(shard.samples for shard in shards)
    if total != length:
        raise DataError(f"the {split} shards in {source.folder!r} hold {total} samples, and "
                        f"{FILE} states {length}", "a shard is missing, or one too many; "
                                          "'ipucnn data verify' reports details")
    if "distributed" in present:
        notes.append(f"{source.shown('distributed')!r} is not needed: any number of "
                     "instances share the shards")
    return shards


def _classes(request: DatasetRequest, metadata: Metadata,
             source: Source) -> Tuple[Tuple[str, ...], Sequence[int]]:
    """Return class names, and the label of each stored class where it differs."""
    wanted, names = request.class_names, metadata.classes
    folder = repr(source.shown(""))
    if not names:
        names = wanted or tuple(map(str, range(request.num_classes or _OLD_CLASSES)))
    check_classes(folder, wanted or names, request.num_classes)
    if not wanted or wanted == names:
        return names, ()
    numbers = {name: number for number, name in enumerate(wanted)}
    other = next((name for name in names if name not in numbers), None)
    if other is not None:
        raise DataError(f"class {other!r} in {folder} is none of the {len(wanted)} classes that "
                        "are trained", "both splits must have the same classes")
    return wanted, [numbers[name] for name in names]


def _is_ready(transforms: Sequence[str], input_size: int, notes: List[str]) -> bool:
    """Return whether images were preprocessed for evaluation at this size when written."""
    steps = [re.fullmatch(r"(Resize|CenterCrop)\(([0-9]{1,6})\)", step.replace(" ", ""))
             for step in transforms]
    done = [(step.group(1), int(step.group(2))) for step in steps if step]
    if done == [("Resize", input_size * 256 // 224), ("CenterCrop", input_size)]:
        return True
    if any(name == "CenterCrop" for name, _ in done):
        notes.append(f"images were stored after {', '.join(transforms)}, which does not suit an "
                     f"input of {input_size} pixels: they are resized and cropped again")
    return False
