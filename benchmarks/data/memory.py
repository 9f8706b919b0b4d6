"""The memory of a process that goes through an epoch of a million samples.

The thousand shards are hard links to one with a thousand tiny JPEGs, so they take the disk a
megabyte; to everything else they are different files. Samples come in an epoch's order, through the
training transform and the loader.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import List

import numpy

sys.path.append(str(Path(__file__).resolve().parents[1]))

from common import save
from images import jpeg, write_index, write_shard

from ipucnn import load_dataset
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.data.augment import TrainTransform
from ipucnn.data.host_loader import HostLoader
from ipucnn.plugins.datasets._webdataset.shard_metadata import shard_name

SIZE = 32
PER_SHARD = 1000
BATCH = 250


def resident() -> float:
    """Return the memory that this process has in use, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def write(folder: Path, shards: int) -> None:
    """Write the shards."""
    random = numpy.random.default_rng(0)
    images = [jpeg(random.integers(0, 256, (SIZE, SIZE, 3), numpy.uint8))
              for _ in range(PER_SHARD)]
    first = write_shard(folder / shard_name("train", 0), images)
    for number in range(1, shards):
        os.link(str(folder / first.name), str(folder / shard_name("train", number)))
    write_index(folder, tuple(replace(first, name=shard_name("train", number))
                              for number in range(shards)))


def main() -> None:
    """Measure an epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1000)
    shards = parser.parse_args().shards
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), shards)
        dataset = load_dataset("webdataset", name, input_size=SIZE, split="train")
        total, seen = len(dataset), 0
        at: List[float] = []
        begin = time.perf_counter()
        order = (int(index) for index in dataset.order(0, 0))
        with HostLoader(dataset, Preprocessing(SIZE), BATCH, order, workers=2,
                        transform=TrainTransform(SIZE, 0, dataset)) as loader:
            for batch in loader:
                seen += len(batch)
                while seen * 100 // total > len(at):
                    at.append(round(resident(), 1))
                    print(f"{len(at)} %: {at[-1]} MiB", file=sys.stderr)
        seconds = time.perf_counter() - begin
    save("data/memory", {
        "what": "resident memory during an epoch of training samples from shards",
        "samples": seen, "shards": shards, "workers": 2, "batch": BATCH,
        "seconds": round(seconds, 1), "mib_after_10_per_cent": at[9], "mib_at_the_end": at[-1],
        "growth_mib": round(at[-1] - at[9], 1), "largest_mib": max(at),
        "mib_after_every_tenth": at[9::10]})


if __name__ == "__main__":
    main()
