"""Folders of shards as the converters write them; the webdataset library makes the archives."""

import hashlib
import io
import json

import numpy
import torch
import webdataset
from PIL import Image

from ipucnn.plugins.datasets._webdataset.shard_metadata import Metadata, Shard, checksum, shard_name

CLASSES = ("ant", "bee", "cat")


def jpeg(number, size=(40, 30)):
    buffer = io.BytesIO()
    Image.new("RGB", size, (number % 256, 90, 3 * number % 256)).save(buffer, "JPEG")
    return buffer.getvalue()


def npy(number, size=32):
    buffer = io.BytesIO()
    numpy.save(buffer, numpy.full((3, size, size), number % 256, numpy.uint8))
    return buffer.getvalue()


def pth(number, size=32):
    buffer = io.BytesIO()
    torch.save(torch.full((3, size, size), number % 256, dtype=torch.uint8), buffer)
    return buffer.getvalue()


def sample(number, kind="jpg", **members):
    image = {"jpg": jpeg, "npy": npy, "pth": pth}[kind](number)
    box = [0.1, 0.2, 0.5, 0.75] if number % 2 else None
    return {"__key__": str(number), kind: image, "cls": str(number % len(CLASSES)).encode(),
            "json": json.dumps({"bbox": box, "image_id": 1000 + number}).encode(), **members}


def write_shard(path, samples):
    with webdataset.TarWriter(str(path), encoder=False) as writer:
        for members in samples:
            writer.write({name: value for name, value in members.items() if value is not None})


def write_split(folder, split, samples, per_shard=4):
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for first in range(0, len(samples), per_shard):
        names.append(shard_name(split, first // per_shard))
        write_shard(folder / names[-1], samples[first:first + per_shard])
    return names


def listed(folder, names, per_shard, total):
    return tuple(Shard(name, min(per_shard, total - per_shard * place),
                       (folder / name).stat().st_size,
                       hashlib.md5((folder / name).read_bytes()).hexdigest())
                 for place, name in enumerate(names))


def write(folder, train=10, validation=6, per_shard=4, kind="jpg", make=sample, **stated):
    """Write a folder as 'ipucnn data convert' does."""
    counts = {"train": train, "validation": validation}
    shards = {}
    for split, count in counts.items():
        names = write_split(folder, split, [make(number, kind) for number in range(count)],
                            per_shard)
        shards[split] = listed(folder, names, per_shard, count)
    fields = {"classes": CLASSES, "boxes": True, "image_ids": True, **stated}
    (folder / "metadata.json").write_text(Metadata(
        counts, "img" if kind == "jpg" else "tensor", shards=shards,
        checksum=checksum(shard.md5 for row in shards.values() for shard in row),
        **fields).as_json())
    return folder


def digest(folder):
    return checksum(hashlib.md5(path.read_bytes()).hexdigest() for path in folder.rglob("*")
                    if path.is_file() and path.name != "metadata.json")


def write_old(folder, train=10, validation=6, per_shard=4, kind="jpg", boxes=True, instances=0,
              **stated):
    """Write a folder as the converter of Graphcore's example applications did."""
    description = {} if boxes else {"json": None}
    counts = {"train": train, "validation": validation}
    shards = {split: write_split(folder, split, [
        sample(number, kind, **{"json": json.dumps({"bbox": [0.1, 0.2, 0.5, 0.75]
                                                    if number % 2 else None}).encode(),
                                **description})
        for number in range(count)], per_shard) for split, count in counts.items()}
    steps = [] if boxes else ["Resize(256)"]
    content = {"train_length": train, "validation_length": validation,
               "format": "img" if kind == "jpg" else "tensor", "shuffle": True, "seed": 7,
               "train_transform_pipeline": steps, "validation_transform_pipeline": steps,
               "checksum": digest(folder), **stated}
    (folder / "metadata.json").write_text(json.dumps(content))
    for split, names in shards.items():
        rest = len(names) % instances or instances if instances else 0
        for number in range(rest):
            place = folder / "distributed" / f"{instances}-instances"
            place.mkdir(parents=True, exist_ok=True)
            (place / shard_name(split, number)).write_bytes((folder / names[-1]).read_bytes())
    return folder
