"""Counts the samples in shards of the old converter, which did not record their number."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Dict, List, Sequence, Tuple

from ipucnn.core.documents import parsed_json
from ipucnn.core.errors import DataError
from ipucnn.core.files import cache_dir, read_limited, write_bytes
from ipucnn.plugins.datasets._webdataset.shard_index import File, Unreadable, samples
from ipucnn.plugins.datasets._webdataset.shard_metadata import LIMIT, Shard
from ipucnn.plugins.datasets._webdataset.source import Folder

_THREADS = 16  # they wait for the disk

Known = Dict[str, Tuple[int, int, int]]  # size in bytes, time of its last change, samples


def counted(folder: Folder, names: Sequence[str]) -> List[Shard]:
    """Return the shards of a folder with the number of samples in each.

    Counts are stored in the user's cache; shards that have not changed since are not read again.

    Raises:
        DataError: a shard cannot be read; the message names it.
    """
    place = _place(folder.folder)
    before = _known(place)

    def count(name: str) -> Tuple[int, int, int]:
        try:
            status = os.stat(folder.path(name))
            known = before.get(name)
            if known and tuple(known[:2]) == (status.st_size, status.st_mtime_ns):
                return known
            held = len(samples(File(folder.path(name))))
            return status.st_size, status.st_mtime_ns, held
        except (Unreadable, OSError) as error:
            raise DataError(f"shard {folder.shown(name)!r} cannot be read: {error}",
                            "copy it again, or convert the dataset again") from error

    with ThreadPoolExecutor(_THREADS) as pool:
        found = dict(zip(names, pool.map(count, names)))
    if any(before.get(name) != row for name, row in found.items()):
        with suppress(DataError):  # the cache only saves time
            write_bytes(place, json.dumps({**before, **found}).encode())
    return [Shard(name, held, size, "") for name, (size, _, held) in found.items()]


def _place(folder: str) -> str:
    digest = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    return str(cache_dir() / "webdataset" / f"{digest}.json")


def _known(place: str) -> Known:
    try:
        return {str(name): (int(row[0]), int(row[1]), int(row[2]))
                for name, row in parsed_json(read_limited(place, LIMIT)).items()}
    except (OSError, ValueError, TypeError, IndexError, AttributeError):
        return {}
