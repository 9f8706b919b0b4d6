"""Lists image files in folders in a fixed order, and provides datasets of image files."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Callable,
    FrozenSet,
    Hashable,
    Iterator,
    List,
    Optional,
    Sequence,
    Set,
    Tuple,
    Union,
)

from ipucnn.core.errors import DataError
from ipucnn.core.files import name_bytes, name_text
from ipucnn.data import ImageDataset, left_out
from ipucnn.data.image_formats import IMAGE, IMAGE_SUFFIXES, OTHER, kind_of
from ipucnn.data.images import check, decode, read_file
from ipucnn.data.left_out import LeftOut, is_archive, is_system_folder
from ipucnn.data.remote.stores import is_store

if TYPE_CHECKING:
    import torch


class FileImages(ImageDataset):
    """A dataset of image files.

    Args:
        paths: the files.
        labels: class of each file; None when they have none.
        class_names: class names in the order of labels.
        notes: notes for the user.
        read: returns the content of a file.

    Attributes:
        paths: the files, in the order of the images.
    """

    def __init__(self, paths: Sequence[str], labels: Optional[Sequence[int]] = None,
                 class_names: Tuple[str, ...] = (), notes: Tuple[str, ...] = (),
                 read: Callable[[str], bytes] = read_file) -> None:
        self.paths = paths
        self._read = read
        self._labels = labels
        self.class_names = class_names
        self.notes = notes
        self.labels_in_memory = labels is not None

    def __len__(self) -> int:
        return len(self.paths)

    def image(self, index: int) -> torch.Tensor:
        """Return image `index`; see `ImageDataset.image`."""
        return decode(self._read(self.paths[index]), self.paths[index])

    def encoded(self, index: int) -> Optional[bytes]:
        """Return the content of file `index`."""
        return self._read(self.paths[index])

    def fingerprint(self) -> str:
        """Return a digest of the files' names and labels; see `ImageDataset.fingerprint`.

        Names are relative to the deepest folder that holds all of the files.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        begin = self._begin()
        for index, path in enumerate(self.paths):
            digest.update(name_bytes(path[begin:]) + repr(self.labels(index)).encode())
        return digest.hexdigest()

    def version(self) -> str:
        """Return a digest of the files' paths, sizes and times; empty for those on a store.

        The time of the last change of a file (`st_ctime`) is part of it, because a copy and a
        renamed file may have the size and the modification time of the file that they replace.
        """
        if self._read is not read_file or not self.paths:
            return ""
        begin = self._begin()
        digest = hashlib.sha256(name_bytes(os.path.abspath(self.paths[0][:begin])))
        for path in self.paths:
            try:
                found = os.stat(path)
                state = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
            except OSError:  # reported when it is read
                state = "missing"
            digest.update(name_bytes(path[begin:]) + f"\0{state}\0".encode())
        return digest.hexdigest()

    def _begin(self) -> int:
        """Return the length of the path of the deepest folder that holds all of the files."""
        # not `commonpath`, which also normalises: of './photos' it returns 'photos'
        folders = {os.path.join(os.path.dirname(path), "") or os.sep for path in self.paths}
        common = os.path.commonprefix(list(folders))  # noqa: RUF071 - their last slash is sought
        return max(0, common.rfind("/"), common.rfind(os.sep))

    def name(self, index: int) -> str:
        """Return the path of image `index`."""
        return name_text(self.paths[index])

    def label(self, index: int) -> Optional[int]:
        """Return the class of image `index`."""
        return None if self._labels is None else self._labels[index]


@dataclass(frozen=True)
class Contents:
    """The contents of a folder, without subfolders.

    Attributes:
        folders: sorted names of its folders, except hidden ones and those of systems.
        images: sorted names of its images.
    """

    folders: List[str]
    images: List[str]


def list_images(folder: str, left: Optional[LeftOut] = None) -> List[str]:
    """Return the paths of the images in a folder and the folders below it.

    They are sorted by their path below the folder, with `/` as separator and capitals first, so
    that the order is the same on every system. Links are followed. Files are selected by their
    suffix; files without a suffix are opened and recognised by their content.

    Args:
        folder: the folder.
        left: receives what is left out: hidden names, files of other kinds, formats that are not
            read, broken links, FIFOs and the like, folders below that cannot be read.

    Raises:
        DataError: the folder cannot be read.
    """
    left = left or LeftOut(folder)
    found = sorted((os.path.relpath(path, folder).replace(os.sep, "/"), path)
                   for path in _walk(folder, left))
    return [path for _, path in found]


def contents(folder: str, left: Optional[LeftOut] = None) -> Contents:
    """Return the folders and images directly in a folder.

    Raises:
        DataError: it cannot be read.
    """
    left = left or LeftOut(folder)
    folders, images = [], []
    for entry, is_folder in _entries(folder, left):
        if is_folder:
            folders.append(entry.name)
        elif _is_image(entry, left):
            images.append(entry.name)
    return Contents(sorted(folders), sorted(images))


def folders_in(folder: str) -> List[str]:
    """Return the sorted names of the folders directly in a folder, except hidden ones.

    Raises:
        DataError: it cannot be read.
    """
    return sorted(entry.name for entry, is_folder in _entries(folder, LeftOut(folder))
                  if is_folder)


def faults(paths: Sequence[str]) -> Iterator[str]:
    """Yield a line for every file that cannot be read, is not an image, or is damaged."""
    for path in paths:
        try:
            check(read_file(path), partial(name_text, path))
        except DataError as error:
            yield error.message


def no_images(folder: str, left: LeftOut, hint: str) -> DataError:
    """Return the error for a folder without images; it states what was left out."""
    why = left.summary()
    return DataError(f"there are no images in {folder!r}" + (f", but {why}" if why else ""),
                     "; ".join(filter(None, (left.advice(), hint))))


@dataclass(frozen=True)
class _StoredEntry:
    """A file or folder on a store, with the interface of `os.DirEntry`."""

    name: str
    path: str


_Entry = Union["os.DirEntry[str]", _StoredEntry]


def _identity(folder: str) -> Hashable:
    if is_store(folder):  # stores have no links to follow
        return folder
    here = os.stat(folder)
    return here.st_dev, here.st_ino


def _above(folder: str) -> FrozenSet[Hashable]:
    """Return the identities of the folders that a folder is in; of a link, also of its target's."""
    found: Set[Hashable] = set()
    if not is_store(folder):
        for path in (os.path.abspath(folder), os.path.realpath(folder)):
            for parent in Path(path).parents:
                with suppress(OSError):  # a link to it cannot be followed, either
                    found.add(_identity(str(parent)))
    return frozenset(found)


def _walk(root: str, left: LeftOut) -> Iterator[str]:
    # not recursive: folders can be nested more deeply than Python calls
    waiting: List[Tuple[str, FrozenSet[Hashable]]] = [(root, _above(root))]
    while waiting:
        folder, above = waiting.pop()
        try:
            identity = _identity(folder)
            if identity in above and folder is not root:
                left.add(left_out.LOOP, folder)
                continue
            entries = _entries(folder, left)
        except (OSError, DataError):
            if folder is root:
                raise
            left.add(left_out.UNREADABLE, folder)
            continue
        for entry, is_folder in entries:
            if is_folder:
                waiting.append((entry.path, above | {identity}))
            elif _is_image(entry, left):
                yield entry.path


def _is_image(entry: _Entry, left: LeftOut) -> bool:
    # a file without a suffix would have to be fetched
    unknown = isinstance(entry, _StoredEntry) and not os.path.splitext(entry.name)[1]
    kind = OTHER if unknown else kind_of(entry.path)
    if kind != IMAGE:
        left.add(left_out.UNREAD if kind != OTHER else left_out.ARCHIVE if is_archive(entry.name)
                 else left_out.OTHER, entry.path)
    return kind == IMAGE


def _stored_entries(folder: str, left: LeftOut) -> List[Tuple[_Entry, bool]]:
    from ipucnn.data.remote.store_images import entries_of

    found: List[Tuple[_Entry, bool]] = []
    for stored in entries_of(folder):
        path = os.path.join(folder, stored.name)
        if stored.name.startswith("."):
            if stored.folder or stored.name.lower().endswith(IMAGE_SUFFIXES):
                left.add(left_out.HIDDEN, path)
        elif is_system_folder(stored.name):
            left.add(left_out.SYSTEM, path)
        else:
            found.append((_StoredEntry(stored.name, path), stored.folder))
    return found


def _entries(folder: str, left: LeftOut) -> List[Tuple[_Entry, bool]]:
    """Return the entries of a folder, and whether each is a folder; some are left out."""
    if is_store(folder):
        return _stored_entries(folder, left)
    found: List[Tuple[_Entry, bool]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    if _may_be_images(entry):
                        left.add(left_out.HIDDEN, entry.path)
                elif entry.is_symlink() and not os.path.exists(entry.path):
                    left.add(left_out.BROKEN, entry.path)
                elif is_system_folder(entry.name):
                    left.add(left_out.SYSTEM, entry.path)
                elif not (entry.is_dir() or entry.is_file()):
                    left.add(left_out.SPECIAL, entry.path)
                else:
                    found.append((entry, entry.is_dir()))
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise DataError(f"cannot list folder {folder!r}: {cause}") from error
    return found


def _may_be_images(entry: os.DirEntry[str]) -> bool:
    """Return whether a hidden entry is reported: other hidden files (.DS_Store) are no images."""
    return os.path.isdir(entry.path) or entry.name.lower().endswith(IMAGE_SUFFIXES)
