"""Verifies that a folder of shards is complete and unchanged."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Dict, Iterable, List, Sequence, Tuple

from ipucnn.core.errors import DataError
from ipucnn.core.machine import thread_count
from ipucnn.data.images import MAX_BYTES, check
from ipucnn.plugins.datasets._webdataset.shard_index import File, Unreadable
from ipucnn.plugins.datasets._webdataset.shard_metadata import (
    FILE,
    SPLITS,
    Metadata,
    Shard,
    checksum,
    is_shard,
    read,
    shard_name,
)
from ipucnn.plugins.datasets._webdataset.shard_samples import TENSORS, Record, read_records
from ipucnn.plugins.datasets._webdataset.source import Folder
from ipucnn.plugins.datasets._webdataset.tensors import pixels_of

_OLD_PARTS = "distributed"  # copies of samples that the old application made for its instances


def verify(folder: str) -> List[str]:
    """Return the problems of a folder of shards, one line each.

    Missing, truncated, changed and extra shards are named, and so are unreadable shards, samples
    and damaged images, whatever their checksums. A folder of the old converter has one checksum for
    all shards or, of the first converter, none.
    """
    source = Folder(folder)
    try:
        metadata = read(source.text(FILE), source.shown(FILE))
        names = source.names()
        return _problems(source, names, metadata) if metadata.shards is not None \
            else _problems_of_old(source, names, metadata)
    except DataError as error:
        return [error.message]


def unverified(folder: str) -> List[str]:
    """Return a note if the metadata has no checksum to compare the shards with."""
    source = Folder(folder)
    with suppress(DataError):  # a problem, which `verify` reports
        metadata = read(source.text(FILE), source.shown(FILE))
        if metadata.shards is None and not metadata.checksum:
            return [f"{source.shown(FILE)!r} has no checksum, as those of the first converter: the "
                    "shards were read and their samples counted, but whether they are those "
                    "that were written cannot be checked"]
    return []


def _problems(source: Folder, names: Sequence[str], metadata: Metadata) -> List[str]:
    shards = [shard for split in (metadata.shards or {}).values() for shard in split]
    classes = len(metadata.classes)
    with ThreadPoolExecutor(thread_count()) as pool:
        found = [problem for problems in pool.map(
            lambda shard: _problems_of_shard(source, shard, classes), shards)
            for problem in problems]
    listed = {shard.name for shard in shards}
    found += [f"shard {source.shown(name)!r} is not in {FILE}: it is not read" for name in names
              if name not in listed and any(is_shard(name, split) for split in SPLITS)]
    if metadata.checksum != checksum(shard.md5 for shard in shards):
        found.append(f"{source.shown(FILE)!r} is damaged: its checksum does not match its shards")
    return found


def _problems_of_shard(source: Folder, shard: Shard, classes: int) -> List[str]:
    changed = _change(source, shard)
    if changed:
        return [changed]
    # an unchanged shard of another program can be unreadable
    count, problems = _read(source, shard.name, classes)
    if not problems and count != shard.samples:
        problems = [f"shard {source.shown(shard.name)!r} holds {count} samples, and {FILE} states "
                    f"{shard.samples}"]
    return problems


def _change(source: Folder, shard: Shard) -> str:
    """Return how a shard differs from the one that was written; empty if it does not."""
    try:
        return source.problem(shard) or (
            "" if _md5(source.path(shard.name)) == shard.md5 else
            f"shard {source.shown(shard.name)!r} has changed: its MD5 was {shard.md5}")
    except OSError as error:
        return (f"shard {source.shown(shard.name)!r} cannot be read: "
                f"{(error.strerror or str(error)).lower()}")


def _problems_of_old(source: Folder, names: Sequence[str], metadata: Metadata) -> List[str]:
    found = []
    for split in SPLITS:
        shards = [name for name in names if is_shard(name, split)]
        with ThreadPoolExecutor(thread_count()) as pool:
            read_shards = dict(zip(shards, pool.map(lambda name: _read(source, name), shards)))
        missing = [name for number in range(len(shards))
                   for name in [shard_name(split, number)] if name not in read_shards]
        found += [f"shard {source.shown(name)!r} is missing" for name in missing]
        found += [problem for _, problems in read_shards.values() for problem in problems]
        total = sum(count for count, _ in read_shards.values())
        if total != metadata.lengths[split]:
            found.append(f"the {split} shards in {source.folder!r} hold {total} samples, and "
                         f"{FILE} states {metadata.lengths[split]}")
    if not metadata.checksum:
        return found
    try:
        digests = _digests(source.folder)
    except OSError as error:
        return [*found, f"cannot read {error.filename!r}: "
                        f"{(error.strerror or str(error)).lower()}"]
    own = [digest for path, digest in digests.items() if path.split(os.sep)[0] != _OLD_PARTS]
    # the checksum was written before the old application created those parts, or manually later
    if metadata.checksum not in (checksum(own), checksum(digests.values())):
        found.append(f"{source.folder!r} has changed: its files do not match the checksum in "
                     f"{FILE}")
    return found


def _read(source: Folder, name: str, classes: int = 0) -> Tuple[int, List[str]]:
    """Return the number of samples in a shard, and its problems; images are decoded.

    Args:
        source: the folder.
        name: of the shard.
        classes: number of classes of which each sample has one; 0 if they are not known.
    """
    shown = source.shown(name)
    try:
        file, records = read_records(File(source.path(name)))
    except Unreadable as error:
        return 0, [f"shard {shown!r} cannot be read: {error}"]
    return len(records), [problem for record in records
                          for problem in [_fault(file, record, f"{shown}/{record.name}", classes)]
                          if problem]


def _fault(file: File, record: Record, name: str, classes: int) -> str:
    """Return the problem of a sample; empty if there is none."""
    fault = record.fault or (record.fault_of_label(classes) if classes else "")
    if not fault and record.image.size > MAX_BYTES:
        fault = f"it is larger than {MAX_BYTES:,} bytes"
    try:
        if not fault:
            content = file.read(record.image)
            if record.extension in TENSORS:
                pixels_of(content, name)
            else:
                check(content, lambda: name)
    except Unreadable as error:
        fault = str(error)
    except DataError as error:
        return error.message
    return fault and f"cannot read sample {name!r}: {fault}"


def _digests(folder: str) -> Dict[str, str]:
    """Return the MD5 of all files except metadata by their path in the folder."""
    paths: Iterable[str] = [
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, names in os.walk(folder) for name in names if name != FILE]
    with ThreadPoolExecutor(thread_count()) as pool:
        return dict(zip(paths, pool.map(
            lambda path: _md5(os.path.join(folder, path)), paths)))


def _md5(path: str) -> str:
    digest = hashlib.md5()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
