"""Lists image files in folders in a fixed order, and provides datasets of image files."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, FrozenSet, Iterator, List, Optional, Sequence, Tuple

from ipucnn.core.errors import DataError
from ipucnn.data import ImageDataset
from ipucnn.data.images import check, decode, read_file

if TYPE_CHECKING:
    import torch

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".ppm", ".pgm",
                  ".pbm", ".pnm", ".tif", ".tiff")
"""Suffixes of image files, compared case-insensitively."""


class FileImages(ImageDataset):
    """A dataset of image files.

    Args:
        paths: the files.
        labels: class of each file; None when they have none.
        class_names: class names in the order of labels.
    """

    def __init__(self, paths: Sequence[str], labels: Optional[Sequence[int]] = None,
                 class_names: Tuple[str, ...] = ()) -> None:
        self._paths = paths
        self._labels = labels
        self.class_names = class_names

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> torch.Tensor:
        """Return image `index`; see `ImageDataset.image`."""
        return decode(self.encoded(index), self._paths[index])

    def encoded(self, index: int) -> bytes:
        """Return the content of file `index`."""
        return read_file(self._paths[index])

    def name(self, index: int) -> str:
        """Return the path of image `index`."""
        return printable(self._paths[index])

    def label(self, index: int) -> Optional[int]:
        """Return the class of image `index`."""
        return None if self._labels is None else self._labels[index]


def list_images(folder: str) -> List[str]:
    """Return the paths of the images in a folder and the folders below it.

    They are sorted by their path below the folder, with `/` as separator and capitals first, so
    that the order is the same on every system. Links are followed; names with a leading dot are
    ignored. Files are selected by `IMAGE_SUFFIXES` and not opened.

    Raises:
        DataError: a folder cannot be read.
    """
    found = sorted((os.path.relpath(path, folder).replace(os.sep, "/"), path)
                   for path in _walk(folder, frozenset()))
    return [path for _, path in found]


def folders_in(folder: str) -> List[str]:
    """Return the sorted names of the folders directly in a folder, except hidden ones.

    Raises:
        DataError: it cannot be read.
    """
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir())


def faults(paths: Sequence[str]) -> Iterator[str]:
    """Yield a line for every file that cannot be read, is not an image, or is damaged."""
    for path in paths:
        try:
            check(read_file(path), partial(printable, path))
        except DataError as error:
            yield error.message


def printable(path: str) -> str:
    r"""Return `path` as printable text.

    On Linux a file name is bytes. Bytes that are not UTF-8 are shown as `\xff`.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _walk(folder: str, above: FrozenSet[Tuple[int, int]]) -> Iterator[str]:
    here = os.stat(folder)
    identity = (here.st_dev, here.st_ino)
    if identity in above:  # a link to a folder that contains it
        return
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _walk(entry.path, above | {identity})
        elif entry.name.lower().endswith(IMAGE_SUFFIXES):
            yield entry.path  # a dangling link, too: reading it must raise an error


def _entries(folder: str) -> List[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise DataError(f"cannot list folder {folder!r}: {cause}") from error
