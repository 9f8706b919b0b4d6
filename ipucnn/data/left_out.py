"""Counts what a dataset leaves out, by reason; every command reports it."""

from __future__ import annotations

import os
from typing import Dict, List, Tuple

from ipucnn.core.files import name_text
from ipucnn.data.image_formats import EXTRA

HIDDEN = "hidden"
SYSTEM = "system"
OTHER = "other"
ARCHIVE = "archive"
UNREAD = "unread"
BROKEN = "broken"
SPECIAL = "special"
LOOP = "loop"
UNREADABLE = "unreadable"
LOOSE = "loose"
BESIDE = "beside"
MISSING = "missing"
UNLISTED = "unlisted"
UNLABELLED = "unlabelled"
OTHER_SPLIT = "other-split"

_SYSTEM_FOLDERS = frozenset({"__macosx", "@eadir", "#recycle", "@recycle", "@__thumb", "lost+found",
                             "$recycle.bin", "system volume information"})
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")

_TEXTS: Dict[str, Tuple[str, str, str]] = {
    BROKEN: ("broken link", "broken links", ""),
    SPECIAL: ("FIFO, socket or device", "FIFOs, sockets or devices", ""),
    UNREADABLE: ("folder that cannot be read", "folders that cannot be read", ""),
    UNREAD: ("image of a format that no installed decoder reads",
             "images of formats that no installed decoder reads",
             f"; {EXTRA} adds decoders of HEIC and AVIF"),
    MISSING: ("image that the labels name and that does not exist",
              "images that the labels name and that do not exist", ""),
    UNLISTED: ("image that the labels do not name", "images that the labels do not name", ""),
    UNLABELLED: ("image without a label", "images without a label", ""),
    OTHER_SPLIT: ("test image beside validation images", "test images beside validation images",
                  ""),
    ARCHIVE: ("archive", "archives", "; unpack archives to read images in them"),
    LOOSE: ("image outside of the class folders", "images outside of the class folders", ""),
    BESIDE: ("image or folder beside the split that is read",
             "images or folders beside the split that is read", ""),
    LOOP: ("link to a folder that it is in", "links to folders that they are in", ""),
    OTHER: ("file that is no image", "files that are no images", ""),
    SYSTEM: ("folder of the operating system", "folders of the operating system", ""),
    HIDDEN: ("hidden image or folder", "hidden images or folders", "")}
"""Singular, plural and advice by reason, the gravest first."""

_FAULTS = (BROKEN, SPECIAL, UNREADABLE)
_NAMED = 3


class LeftOut:
    """What a dataset leaves out of a folder.

    Args:
        root: the folder; names are relative to it.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._found: Dict[str, Dict[str, None]] = {}

    def add(self, reason: str, path: str) -> None:
        """Add a path; a path that is added twice counts once."""
        self._found.setdefault(reason, {})[path] = None

    def include(self, other: LeftOut) -> None:
        """Add the paths of another object."""
        for reason, paths in other._found.items():
            for path in paths:
                self.add(reason, path)

    def forget(self, folder: str) -> None:
        """Do not count a folder's files, or one file, that have another purpose."""
        begin = os.path.join(folder, "")
        kept = {reason: {path: None for path in paths
                         if path != folder and not path.startswith(begin)}
                for reason, paths in self._found.items()}
        self._found = {reason: paths for reason, paths in kept.items() if paths}

    def paths(self, reason: str) -> List[str]:
        """Return the paths that were left out for a reason."""
        return list(self._found.get(reason, ()))

    def notes(self) -> Tuple[str, ...]:
        """Return one note per reason: the number, the first names, and a suggestion."""
        return tuple(
            f"left out of {name_text(self._root)!r}: {self._counted(reason)}: "
            f"{self._named(reason)}{_TEXTS[reason][2]}"
            for reason in _TEXTS if reason in self._found)

    def summary(self) -> str:
        """Return the numbers by reason as a phrase; empty if nothing was left out."""
        return ", ".join(self._counted(reason) for reason in _TEXTS if reason in self._found)

    def advice(self) -> str:
        """Return the command that installs decoders, or to unpack archives; empty otherwise."""
        return EXTRA if UNREAD in self._found else "unpack the archive" \
            if ARCHIVE in self._found else ""

    def faults(self) -> List[str]:
        """Return a line for every broken link, special file and folder that cannot be read."""
        return [f"{name_text(path)!r} is a {_TEXTS[reason][0]}" for reason in _FAULTS
                for path in self.paths(reason)]

    def _counted(self, reason: str) -> str:
        count = len(self._found[reason])
        return f"{count} {_TEXTS[reason][0 if count == 1 else 1]}"

    def _named(self, reason: str) -> str:
        paths = sorted(self._found[reason])
        names = [name_text(os.path.relpath(path, self._root)) for path in paths[:_NAMED]]
        more = len(paths) - len(names)
        return ", ".join(names) + (f" and {more} more" if more else "")


def is_system_folder(name: str) -> bool:
    """Return whether a folder is one that systems create, by its name in any case.

    These are of macOS in archives, of a NAS (Synology, QNAP) beside photographs, and of Linux and
    Windows at the top of a disk. They are no classes; images in them are copies or were removed.
    """
    return name.lower() in _SYSTEM_FOLDERS


def is_archive(path: str) -> bool:
    """Return whether a file is an archive, by its suffix."""
    return path.lower().endswith(_ARCHIVE_SUFFIXES)


def unpacking(path: str, otherwise: str) -> str:
    """Return the hint for a file in the place of a folder: to unpack an archive, or `otherwise`."""
    return "unpack it, and name the folder of its content" if is_archive(path) else otherwise
