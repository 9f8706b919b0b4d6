"""Reads the samples of a shard: location of the image, label, bounding box and id."""

from __future__ import annotations

import re
from typing import Any, List, NamedTuple, Optional, Set, Tuple

from ipucnn.core.documents import parsed_json
from ipucnn.core.files import name_text
from ipucnn.core.names import brief
from ipucnn.data import Box
from ipucnn.data.image_formats import IMAGE_SUFFIXES
from ipucnn.plugins.datasets._webdataset.shard_index import (
    File,
    Member,
    Sample,
    Unreadable,
    samples,
)

TENSORS = ("npy", "pth")
_LONGEST_LABEL, _LONGEST_JSON = 64, 1 << 20  # in bytes
_IMAGES = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)


class Record(NamedTuple):
    """A sample's metadata, without its pixels.

    Attributes:
        name: of its image in the shard; unique.
        image: location of the image in the shard.
        label: None when it has none.
        box: None when it has none.
        image_id: None when it has none.
        fault: why it cannot be used; empty when it can.
    """

    name: str
    image: Member
    label: Optional[int] = None
    box: Optional[Box] = None
    image_id: Optional[int] = None
    fault: str = ""

    @property
    def extension(self) -> str:
        """Extension of the image, which states its format."""
        return self.name.rpartition(".")[2].lower()

    def fault_of_label(self, classes: int) -> str:
        """Return why its label is not the number of one of so many classes; empty if it is."""
        if self.label is None:
            return "it has no label ('cls')"
        return "" if 0 <= self.label < classes else \
            f"its label {self.label} is none of {classes} classes"


class Records(NamedTuple):
    """A shard's file and its samples."""

    file: File
    samples: List[Record]


def read_records(file: File) -> Records:
    """Return the samples of a shard.

    Raises:
        Unreadable: it is not a tar archive, is truncated or damaged.
    """
    names: Set[str] = set()
    found: List[Record] = []
    for sample in samples(file):
        record = _record(file, sample)
        if record.name in names:  # two samples with the same key that are not adjacent
            head, dot, extension = record.name.rpartition(".")
            record = record._replace(name=f"{head}#{len(found)}{dot}{extension}")
        names.add(record.name)
        found.append(record)
    return Records(file, found)


def _record(file: File, sample: Sample) -> Record:
    kind = next((kind for kind in (*_IMAGES, *TENSORS) if kind in sample.members), None)
    key = name_text(sample.key)
    if kind is None:
        return Record(f"{key}.*", Member(0, 0),
                      fault=f"it has no image (it has: {', '.join(sorted(sample.members))})")
    image = sample.members[kind]._replace(content=None)  # image data is never kept in memory
    label, box, image_id = None, None, None
    try:
        if "cls" in sample.members:
            label = _label(_small(file, sample.members["cls"], "cls", _LONGEST_LABEL))
        if "json" in sample.members:
            box, image_id = _described(_small(file, sample.members["json"], "json",
                                              _LONGEST_JSON))
    except Unreadable as error:
        return Record(f"{key}.{kind}", image, fault=str(error))
    return Record(f"{key}.{kind}", image, label, box, image_id)


def _small(file: File, member: Member, kind: str, limit: int) -> bytes:
    if member.size > limit:
        raise Unreadable(f"its file {kind!r} has {member.size:,} bytes, more than {limit:,}")
    return file.read(member)


def _label(content: bytes) -> int:
    if not re.fullmatch(rb"\s*[+-]?[0-9]{1,18}\s*", content):
        raise Unreadable(f"its label {content[:20]!r} is no number")
    return int(content)


def _described(content: bytes) -> Tuple[Optional[Box], Optional[int]]:
    try:
        value = parsed_json(content)
    except ValueError as error:
        raise Unreadable(f"its file 'json' is damaged: {error}") from None
    if not isinstance(value, dict):
        return None, None
    return _box(value.get("bbox")), _image_id(value.get("image_id"))


def _box(value: Any) -> Optional[Box]:
    if value is None:
        return None
    try:
        left, top, right, bottom = map(float, value)
    except (TypeError, ValueError):
        raise Unreadable(f"{brief(value)} is not a bounding box") from None
    if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1):
        raise Unreadable(f"{brief(value)} is not a bounding box: left, top, right and bottom are "
                         "relative to the image's size (0 to 1)")
    return left, top, right, bottom


def _image_id(value: Any) -> Optional[int]:
    if value is None:
        return None
    if type(value) is not int or not -2 ** 63 <= value < 2 ** 63:
        raise Unreadable(f"{brief(value)} is no number of an image")
    return value
