"""Reads and writes `metadata.json`, which describes the shards of a folder.

Its first keys are those of the converter of Graphcore's example applications, so that each tool
reads the other's files; `classes`, `shards`, `origin` and `version` are specific to ipucnn.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, List, Optional, Tuple

from ipucnn.core.errors import DataError
from ipucnn.core.files import parsed_json
from ipucnn.core.names import brief, encodable

FILE = "metadata.json"
VERSION = 1
SPLITS = ("train", "validation")
FORMATS = ("img", "tensor")

LIMIT = 1 << 26
"""Largest file in bytes: room for half a million shards."""

_MOST = 1 << 48  # of samples, and of bytes
_SHORTEST = 512  # bytes that a sample takes in an archive
_SHARD = re.compile(r"(train|validation)-[0-9]{6,12}\.tar")
_MD5 = re.compile(r"[0-9a-fA-F]{32}")
_RECONVERT = ("make the folder again with 'ipucnn data convert'; if it holds something else than "
              "shards, name its format with '--data', such as '--data image_folder'")


@dataclass(frozen=True)
class Shard:
    """The properties of one tar archive when it was written.

    Attributes:
        name: of its file in the folder.
        samples: number of samples in it.
        bytes: size of the file.
        md5: of the file, in hexadecimal digits.
    """

    name: str
    samples: int
    bytes: int
    md5: str


@dataclass(frozen=True)
class Metadata:
    """The metadata of a folder of shards.

    Attributes:
        lengths: samples by split.
        format: `img` for encoded images, `tensor` for pixels.
        transforms: by split, the transforms of the images: `Resize(256)`, `CenterCrop(224)`.
        classes: class names in the order of labels; empty when the samples have none.
        shards: by split, in order; None where the writer did not list them (the old converter).
        boxes: some samples have bounding boxes; None when not stated.
        image_ids: some samples have the id that they had in their dataset.
        shuffle: whether samples were shuffled before they were written.
        seed: of the shuffle.
        image_quality: JPEG quality, where images were encoded.
        checksum: MD5 of the sorted digests of all shards.
        origin: source and settings of the conversion; None where ipucnn did not make it.
    """

    lengths: Dict[str, int]
    format: str = "img"
    transforms: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    classes: Tuple[str, ...] = ()
    shards: Optional[Dict[str, Tuple[Shard, ...]]] = None
    boxes: Optional[bool] = None
    image_ids: bool = False
    shuffle: bool = False
    seed: int = 0
    image_quality: Optional[int] = None
    checksum: str = ""
    origin: Optional[Dict[str, Any]] = None

    def as_json(self) -> str:
        """Return the content of the file."""
        content: Dict[str, Any] = {
            "train_length": self.lengths.get("train", 0),
            "validation_length": self.lengths.get("validation", 0),
            "format": self.format, "shuffle": self.shuffle, "seed": self.seed,
            "train_transform_pipeline": list(self.transforms.get("train", ())),
            "validation_transform_pipeline": list(self.transforms.get("validation", ())),
            "image_quality": self.image_quality, "checksum": self.checksum, "version": VERSION,
            "classes": list(self.classes), "boxes": self.boxes, "image_ids": self.image_ids,
            "shards": {split: [[s.name, s.samples, s.bytes, s.md5] for s in shards]
                       for split, shards in (self.shards or {}).items()},
            "origin": self.origin}
        lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"


def read(text: str, name: str) -> Metadata:
    """Parse the content of a `metadata.json`.

    Args:
        text: its content.
        name: of the file, for error messages.

    Raises:
        DataError: it is damaged, or was written by a newer ipucnn.
    """
    try:
        content = parsed_json(text)
        version = content.get("version", VERSION)
        if version != VERSION:
            raise DataError(f"{name!r} has version {brief(version)}, this ipucnn reads {VERSION}",
                            "upgrade ipucnn")
        listed = content.get("shards")
        everywhere = content.get("transform_pipeline", ())  # one for both in the oldest files
        transforms = {split: _texts(content.get(f"{split}_transform_pipeline", everywhere))
                      for split in SPLITS}
        result = Metadata(
            {split: _count(content[f"{split}_length"]) for split in SPLITS},
            str(content.get("format", "img")), transforms,
            tuple(map(encodable, _texts(content.get("classes", ())))),
            None if listed is None else {
                split: tuple(_shard(row) for row in listed.get(split, ())) for split in SPLITS},
            content.get("boxes"), bool(content.get("image_ids", False)),
            bool(content.get("shuffle", False)), _count(content.get("seed") or 0, 2 ** 63),
            content.get("image_quality"), str(content.get("checksum", "")),
            content.get("origin"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{name!r} is damaged: {_cause(error)}", _RECONVERT) from error
    if result.format not in FORMATS:
        raise DataError(f"{name!r}: the format {brief(result.format)} is unknown",
                        "formats: " + ", ".join(FORMATS))
    listed = Counter(shard.name for shards in (result.shards or {}).values() for shard in shards)
    twice, times = max(listed.items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        raise DataError(f"{name!r} is damaged: it lists shard {twice!r} twice", _RECONVERT)
    for split, shards in (result.shards or {}).items():
        counted = sum(shard.samples for shard in shards)
        if counted != result.lengths[split]:
            raise DataError(f"{name!r} is damaged: its {split} shards hold {counted} samples and "
                            f"{split}_length is {result.lengths[split]}", _RECONVERT)
    return result


def shard_name(split: str, number: int) -> str:
    """Return the file name of a shard; numbers count from 0."""
    return f"{split}-{number:06d}.tar"


def is_shard(name: str, split: str) -> bool:
    """Return whether a file has the name of a shard of a split."""
    found = _SHARD.fullmatch(name)
    return bool(found) and found.group(1) == split  # type: ignore[union-attr]


def checksum(digests: Iterable[str]) -> str:
    """Return the MD5 of a folder whose files have these MD5 digests.

    The algorithm is that of the package `checksumdir`, which the old converter used.
    """
    return hashlib.md5("".join(sorted(digests)).encode()).hexdigest()


def _shard(row: List[Any]) -> Shard:
    name, samples, size, md5 = row
    # name and digest are used in paths
    if not isinstance(name, str) or not _SHARD.fullmatch(name):
        raise ValueError(f"{brief(name)} is no shard's name")
    if not isinstance(md5, str) or not _MD5.fullmatch(md5):
        raise ValueError(f"{brief(md5)} is no MD5")
    shard = Shard(name, _count(samples), _count(size), md5.lower())
    if shard.samples * _SHORTEST > shard.bytes:
        raise ValueError(f"shard {name!r} of {shard.bytes} bytes cannot hold {shard.samples} "
                         "samples")
    return shard


def _count(value: Any, most: int = _MOST) -> int:
    if type(value) is not int or not 0 <= value < most:
        raise ValueError(f"{brief(value)} is no number of samples or bytes, from 0 to {most - 1}")
    return value


def _texts(value: Any) -> Tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{brief(value)} is no list of texts")
    return tuple(value)


def _cause(error: Exception) -> str:
    if isinstance(error, (AttributeError, TypeError)):
        return "an entry is of a wrong type"
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return str(error)
