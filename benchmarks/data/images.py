"""Photographs' stand-ins, as files and as shards."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import List, Tuple

import numpy
import webdataset
from PIL import Image

from ipucnn.plugins.datasets._webdataset.shard_metadata import (
    FILE,
    Metadata,
    Shard,
    checksum,
    shard_name,
)

HEIGHT, WIDTH = 375, 500
QUALITY = 92
CLASSES = 10


def photograph(number: int) -> bytes:
    """Return a JPEG file of 500x375 pixels and about 100 KB.

    The amplitude of a photograph's frequencies falls like 1/f; so does that of this noise, whose
    colours are smoother than its brightness, as in photographs.
    """
    random = numpy.random.default_rng(number)
    frequency = numpy.hypot(numpy.fft.fftfreq(HEIGHT)[:, None], numpy.fft.rfftfreq(WIDTH)[None])
    frequency[0, 0] = 1

    def noise(steepness: float) -> numpy.ndarray:
        spectrum = numpy.fft.rfft2(random.standard_normal((HEIGHT, WIDTH)))
        field = numpy.fft.irfft2(spectrum / frequency**steepness, s=(HEIGHT, WIDTH))
        return field / field.std()

    brightness = noise(1.15)
    pixels = 128 + 45 * numpy.stack([brightness + 0.3 * noise(1.6) for _ in range(3)], axis=-1)
    return jpeg(pixels.clip(0, 255).astype(numpy.uint8), QUALITY)


def jpeg(pixels: numpy.ndarray, quality: int = 75) -> bytes:
    """Return pixels `(height, width, 3)` as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def write_files(folder: Path, images: List[bytes]) -> None:
    """Write class folders in `folder/train`; image `i` is of class `i % CLASSES`."""
    for number, image in enumerate(images):
        path = folder / "train" / f"class{number % CLASSES}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)


def write_shard(path: Path, images: List[bytes], first: int = 0) -> Shard:
    """Write a shard with images that are numbered from `first`, and return what it is."""
    with webdataset.TarWriter(str(path), encoder=False) as writer:
        for number, image in enumerate(images, first):
            writer.write({"__key__": str(number), "jpg": image,
                          "cls": str(number % CLASSES).encode(), "json": b'{"bbox": null}'})
    content = path.read_bytes()
    return Shard(path.name, len(images), len(content), hashlib.md5(content).hexdigest())


def write_shards(folder: Path, images: List[bytes], per_shard: int) -> None:
    """Write the images as shards for training."""
    folder.mkdir(parents=True, exist_ok=True)
    write_index(folder, tuple(
        write_shard(folder / shard_name("train", first // per_shard),
                    images[first:first + per_shard], first)
        for first in range(0, len(images), per_shard)))


def write_index(folder: Path, shards: Tuple[Shard, ...]) -> None:
    """Write the `metadata.json` of shards for training."""
    (folder / FILE).write_text(Metadata(
        {"train": sum(shard.samples for shard in shards), "validation": 0},
        classes=tuple(f"class{number}" for number in range(CLASSES)),
        shards={"train": shards, "validation": ()}, boxes=False,
        checksum=checksum(shard.md5 for shard in shards)).as_json())
