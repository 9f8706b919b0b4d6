"""Converts a dataset to another format: `ipucnn data convert`.

This module opens the source's splits, checks them and passes them to the target format's writer,
which the record of a dataset names under `convert`.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Optional, Tuple

from ipucnn.core.errors import DataError, NoSplitError, UsageError
from ipucnn.core.options.assignment import settled
from ipucnn.core.options.composition import common_option
from ipucnn.core.options.declaration import declared
from ipucnn.core.progress import Progress
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import registry
from ipucnn.core.registry.targets import import_target
from ipucnn.core.showing import Blocks, Shown, Table
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.dataset_checks import opened
from ipucnn.data.formats.convert_options import (
    SPLITS,
    ConvertImages,
    ConvertOptions,
    ConvertTarget,
)
from ipucnn.data.formats.recognition import (
    dataset_in,
    is_url,
    offering,
    read_by,
    recognised,
)
from ipucnn.data.formats.samples import Samples, facts

# options that decide what is written; skipping bad samples may be enabled when resuming
_DECIDING = (*(item.name for kind in (ConvertTarget, ConvertImages) for item in declared(kind)
               if item.name not in ("target", "to")), "check")


@dataclass(frozen=True)
class Written:
    """One split in its new format.

    Attributes:
        shards: files.
        samples: number of samples in them.
        bytes: their total size.
        skipped: number of bad samples left out.
        found: how many of the samples an earlier call had written.
    """

    shards: int
    samples: int
    bytes: int
    skipped: int
    found: int = 0


class Writer(ABC):
    """Writes samples in the format of a dataset. Its constructor takes no arguments."""

    @abstractmethod
    def write(self, target: str, samples: Dict[str, Samples], options: ConvertOptions,
              origin: Dict[str, Any], progress: Progress) -> Dict[str, Written]:
        """Write the samples, resuming an interrupted call of the same origin.

        The files depend on the samples and on `origin` only, not on the number of workers.

        Args:
            target: the folder: new, empty, or of an earlier call.
            samples: by split.
            options: of the conversion. `destination.samples_per_shard`,
                `destination.bytes_per_shard` and `execution.workers` are for the writer, and it
                records others as metadata.
            origin: source and settings of the conversion, in JSON's types. The writer stores it
                with the files and compares it with `difference` when it finds existing ones.
            progress: called periodically from the calling thread.

        Raises:
            UsageError: the target holds something else.
            DataError: an image cannot be read, or the files not be written. Calling again resumes.
        """


@dataclass(frozen=True, repr=False)
class Converted(Shown):
    """The result of a conversion.

    Attributes:
        target: the folder.
        data: format of the source.
        to: format of the target.
        splits: the splits written.
        seconds: duration.
        notes: notes for the user about the source.
    """

    target: str
    data: str
    to: str
    splits: Dict[str, Written]
    seconds: float
    notes: Tuple[str, ...] = ()

    @property
    def images_per_second(self) -> Optional[float]:
        """Samples written by this call per second; None when there were none to write."""
        written = sum(split.samples - split.found for split in self.splits.values())
        return written / self.seconds if written else None

    def as_dict(self) -> Dict[str, Any]:
        """Return plain types, for JSON."""
        return {**asdict(self), "notes": list(self.notes),
                "images_per_second": self.images_per_second}

    def blocks(self) -> Blocks:
        """Return a row per split and the duration; see `Shown`."""
        rows = [(split, str(made.samples), str(made.shards), f"{made.bytes / 1e6:.1f}",
                 str(made.skipped)) for split, made in self.splits.items()]
        return [Table(("split", "samples", "shards", "MB", "left out"), rows, self.target),
                [("seconds", f"{self.seconds:.1f}"), ("notes", list(self.notes))]]

    def records(self) -> List[Dict[str, Any]]:
        """Return a row per split."""
        return [{"split": split, **asdict(made)} for split, made in self.splits.items()]

    def summary(self) -> str:
        """Return one line per split and one for the total."""
        lines = [f"{split}: {made.samples} samples in {made.shards} shards, "
                 f"{made.bytes / 1e6:.1f} MB"
                 + (f", {made.skipped} bad ones left out" if made.skipped else "")
                 + (f", {made.found} were there" if 0 < made.found < made.samples else "")
                 for split, made in self.splits.items()]
        rate = self.images_per_second
        lines.append(f"{self.target} is complete: nothing to do" if rate is None else
                     f"{self.target}: {self.seconds:.1f} s, {rate:.1f} images/s")
        return "\n".join(lines)


def convert(options: ConvertOptions, progress: Progress) -> Converted:
    """Convert a dataset.

    Raises:
        UsageError: the source or the format does not support conversion, or the target cannot be
            used.
        DataError: an image cannot be read, or the target not be written.
    """
    begin = time.perf_counter()
    target = options.destination.target or ""
    writer = _writer(options.destination.to)
    spec = _source_format(options)
    root = options.origin.source or spec.default_data_dir
    _check_apart(root, target)
    datasets = _splits(spec, options)
    samples = {split: Samples(dataset, split, options) for split, dataset in datasets.items()}
    origin = {"data": spec.name, "source": facts(samples, root, deep=not spec.streams),
              **{name: options.get(name) for name in _DECIDING},
              **{f"{split}_preprocess_steps": list(map(str, options.images.steps(split)))
                 for split in SPLITS}}
    written = writer.write(target, samples, options, origin, progress)
    notes = tuple(dict.fromkeys(note for dataset in datasets.values() for note in dataset.notes))
    return Converted(target, spec.name, options.destination.to, written,
                     time.perf_counter() - begin, notes)


def difference(before: Dict[str, Any], now: Dict[str, Any]) -> Optional[str]:
    """Return the difference of two origins as a phrase for a message; None when they are equal."""
    for name in _DECIDING:
        if before.get(name) != now[name]:
            found = common_option(ConvertOptions, name)
            assert found is not None
            return f"'{found.flag}' was {before.get(name)} and is {now[name]}"
    if before.get("data") != now["data"]:
        return f"the source was {before.get('data')!r} and is {now['data']!r}"
    old, new = before.get("source", {}), now["source"]
    if list(old) != list(new):
        return f"the splits were {', '.join(old)} and are {', '.join(new)}"
    for split, facts_now in new.items():
        if old[split]["images"] != facts_now["images"]:
            return (f"the source had {old[split]['images']} {split} images and has "
                    f"{facts_now['images']}")
        if old[split] != facts_now:
            return f"the {split} images of the source have other names, classes or boxes"
    return None


def _writer(name: str) -> Writer:
    spec = registry().get_typed(DatasetSpec, name)
    if not spec.convert:
        raise UsageError(f"nothing can be converted into {spec.name!r}",
                         "formats that can be written: " + offering("convert", registry()))
    writer: Writer = import_target(spec.convert)()
    return writer


def _source_format(options: ConvertOptions) -> DatasetSpec:
    source = options.origin.source
    if options.origin.data is None and source is None:
        raise UsageError("there is nothing to convert", "name a folder with '--source', or with "
                         "'--data' a dataset that makes its images")
    if source and not is_url(source) and not os.path.exists(source):
        raise DataError(f"source {source!r} does not exist", "check its name")
    name = options.origin.data or (dataset_in(source, registry(), "") if source and is_url(source)
                                   else recognised(source or ""))
    spec = read_by(registry().get_typed(DatasetSpec, name), source, registry())
    if spec.on_device:
        raise UsageError(f"dataset {spec.name!r} has no images on the host",
                         "choose another with '--data'")
    if source and not spec.reads_folder:
        raise UsageError(f"dataset {spec.name!r} reads no folder", "leave '--source' out")
    if spec.needs_data_dir and not source:
        raise UsageError(f"dataset {spec.name!r} needs a folder", "name it with '--source'")
    return spec


def _check_apart(source: str, target: str) -> None:
    if not source or is_url(source):
        return
    here, there = os.path.realpath(source), os.path.realpath(target)
    if os.path.commonpath([here, there]) in (here, there):
        raise UsageError(f"source {source!r} and target {target!r} overlap: one contains the other",
                         "choose a target outside the source")


def _splits(spec: DatasetSpec, options: ConvertOptions) -> Dict[str, ImageDataset]:
    """Return the requested splits, or all splits of the source."""
    source, seed = options.origin.source, options.destination.seed
    own = settled(options.plugins, "dataset", spec, registry())
    wanted = options.origin.splits or (SPLITS if spec.labelled else ("validation",))
    if not spec.labelled and len(wanted) > 1:
        raise UsageError(f"dataset {spec.name!r} has no splits, its images would be there twice",
                         "name one with '--splits'")
    found: Dict[str, ImageDataset] = {}
    missing: Optional[NoSplitError] = None
    classes: Tuple[str, ...] = ()
    for split in SPLITS:
        if split not in wanted:
            continue
        try:
            dataset = opened(registry().make_typed(ImageDataset, spec, DatasetRequest(
                data_dir=source, seed=seed, split=split, class_names=classes), options=own),
                registry().in_words(spec))
            if dataset.multi_label:
                raise UsageError("images with several labels cannot be converted: shards hold one "
                                 "label per image", "train on the files themselves")
            if not len(dataset):
                raise NoSplitError(f"dataset {spec.name!r} has no {split} images")
        except NoSplitError as error:
            missing = missing or error
            continue
        found[split] = dataset
        classes = classes or dataset.class_names
        if dataset.class_names != classes:
            raise DataError(f"the splits of {source!r} have different classes",
                            "labels would mean different things: convert one with '--splits'")
    if missing and (options.origin.splits or not found):
        raise NoSplitError(missing.message, "'--splits' names those to convert; is it the right "
                           f"folder? layout: {spec.layout}")
    return found

