"""Finds images with the same content in a dataset of files."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from contextlib import suppress
from typing import Callable, DefaultDict, Hashable, List, Mapping, NamedTuple, TypeVar

from ipucnn.core.errors import DataError
from ipucnn.core.files import name_text
from ipucnn.data.image_files import FileImages
from ipucnn.data.images import read_file

KeyT = TypeVar("KeyT", bound=Hashable)


class _Image(NamedTuple):
    path: str
    split: str
    label: Hashable


def notes(folder: str, parts: Mapping[str, FileImages]) -> List[str]:
    """Return notes on images of which the same content is also another image.

    Files are compared as they are stored, and only those of equal size are read.

    Args:
        folder: the dataset's, to which names are relative.
        parts: its images by split.
    """
    images = [_Image(path, split, part.labels(index))
              for split, part in parts.items() for index, path in enumerate(part.paths)]
    alike = [copies for same_size in _groups(images, lambda one: os.stat(one.path).st_size)
             for copies in _groups(same_size, lambda one: hashlib.sha256(
                 read_file(one.path)).digest())]
    in_both = [copies for copies in alike if len({one.split for one in copies}) > 1]
    in_classes = [copies for copies in alike if len({one.label for one in copies}) > 1]
    repeated = [copies for copies in alike if len({one[1:] for one in copies}) == 1]
    alone = len(parts) == 1
    found = [
        (in_both, "images for training and for validation", "the accuracy is too high"),
        (in_classes, "images in several classes", ""),
        (repeated, "images that are there several times",
         "a training may hold out a copy for validation" if alone else "")]
    return [f"{what}: {len(copies)}, for example {_example(folder, copies[0])}"
            + (f"; {effect}" if effect else "") for copies, what, effect in found if copies]


def _groups(images: List[_Image], of: Callable[[_Image], KeyT]) -> List[List[_Image]]:
    """Return the images that have a value in common with others."""
    found: DefaultDict[KeyT, List[_Image]] = defaultdict(list)
    for one in images:
        with suppress(OSError, DataError):  # which `verify` reports
            found[of(one)].append(one)
    return [group for group in found.values() if len(group) > 1]


def _example(folder: str, copies: List[_Image]) -> str:
    """Return two of them that differ in split or class if possible."""
    first = copies[0]
    other = max(copies[1:], key=lambda one: (one.split != first.split, one.label != first.label))
    return " and ".join(repr(name_text(os.path.relpath(one.path, folder)))
                        for one in (first, other))
