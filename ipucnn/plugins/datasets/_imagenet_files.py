"""Reads ImageNet (ILSVRC 2012) from raw folders, with bounding boxes where available."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Dict, List, Optional, Tuple

from ipucnn.core.errors import DataError, NoSplitError
from ipucnn.core.files import require_file
from ipucnn.data import Box, DatasetRequest, ImageDataset, check_classes
from ipucnn.data.image_files import FileImages, folders_in
from ipucnn.data.left_out import LeftOut
from ipucnn.plugins.datasets._class_folders import (
    TRAINING_FOLDERS,
    VALIDATION_FOLDERS,
    class_names,
    given_folder,
    images_by_class,
    split_folder,
)

LAYOUT = ("--data-dir/train/<class>/*.JPEG and --data-dir/validation/<class>/*.JPEG (or val/); "
          "optionally --data-dir/imagenet_2012_bounding_boxes.csv")
BOXES = "imagenet_2012_bounding_boxes.csv"

_SYNSET = re.compile(r"n\d{8}")  # ImageNet's class names

# of the published images, from the old application's check
_MD5 = {"train": "17aed9504492852ddcc2ac247413aa95",
        "validation": "8d6a57a773cf3c3354c92155a5b1d5bd"}


class ImagenetImages(FileImages):
    """Image files, some with the bounding box of their object."""

    def __init__(self, paths: List[str], labels: List[int], classes: Tuple[str, ...],
                 boxes: Dict[str, Box], notes: Tuple[str, ...] = ()) -> None:
        super().__init__(paths, labels, classes, notes)
        self._boxes = boxes
        self.has_boxes = any(os.path.basename(path) in boxes for path in paths) if boxes else False

    def box(self, index: int) -> Optional[Box]:
        """Return the box of image `index`."""
        return self._boxes.get(os.path.basename(self.paths[index]))


def make(request: DatasetRequest) -> ImageDataset:
    """Return one split; validation images for an evaluation.

    Raises:
        DataError: a folder is missing, the splits differ in their classes, or the file of
            bounding boxes is damaged.
    """
    root = given_folder(request, "imagenet", LAYOUT)
    left = LeftOut(root)
    train = split_folder(root, TRAINING_FOLDERS)
    if request.split == "train":
        if train is None:
            raise NoSplitError(f"there is no folder {os.path.join(root, 'train')!r}",
                               f"layout: {LAYOUT}")
        paths, labels, classes = images_by_class(train, LAYOUT, left=left)
    else:
        folder = _validation(root)
        if train is not None:
            _check_same_classes(train, folder)
        paths, labels, classes = images_by_class(folder, LAYOUT, request.class_names, left)
    boxes = _boxes(os.path.join(root, BOXES)) if request.split == "train" else {}
    check_classes(repr(root), classes, request.num_classes)
    images = ImagenetImages(paths, labels, classes, boxes, left.notes())
    images.split = "train" if request.split == "train" else "validation"
    return images


def _validation(root: str) -> str:
    """Return the folder of the validation images: below `root`, or `root` itself."""
    folder = split_folder(root, VALIDATION_FOLDERS)
    if folder is not None:
        return folder
    if any(_SYNSET.fullmatch(name) for name in folders_in(root)):
        return root
    raise NoSplitError(f"there is no folder {os.path.join(root, 'validation')!r}",
                       f"layout: {LAYOUT}; or name it with '--validation-data-dir', or add "
                       "'--no-validation'")


def _check_same_classes(train: str, validation: str) -> None:
    differing = set(class_names(train)).symmetric_difference(class_names(validation))
    if differing:
        name = min(differing)
        there, missing = ((train, validation) if name in class_names(train)
                          else (validation, train))
        raise DataError(f"class folder {name!r} is in {there!r} and not in {missing!r}",
                        "both must have the same class folders")


def verify(folder: str) -> List[str]:
    """Return the problems of a folder of ImageNet, comparing both splits with checksums."""
    problems = []
    for split, expected in _MD5.items():
        place = split_folder(folder, TRAINING_FOLDERS if split == "train" else VALIDATION_FOLDERS)
        if place is None:
            problems.append(f"there is no folder {os.path.join(folder, split)!r}")
            continue
        try:
            digest = folder_md5(place)
        except OSError as error:
            problems.append(f"cannot read {error.filename!r}: "
                            f"{(error.strerror or str(error)).lower()}")
            continue
        if digest != expected:
            problems.append(f"{place!r} differs from the published images (MD5 {digest}, expected "
                            f"{expected})")
    return problems


def folder_md5(folder: str) -> str:
    """Return the MD5 of a folder: of the sorted digests of all files at any depth.

    The algorithm is that of the package `checksumdir`, with which the published sums were made.
    """
    digests = []
    for place, _, names in os.walk(folder):
        for name in names:
            require_file(os.path.join(place, name))  # reading a pipe would block
            digest = hashlib.md5()
            with open(os.path.join(place, name), "rb") as file:
                for block in iter(lambda: file.read(1 << 20), b""):
                    digest.update(block)
            digests.append(digest.hexdigest())
    return hashlib.md5("".join(sorted(digests)).encode()).hexdigest()


def _boxes(path: str) -> Dict[str, Box]:
    """Return the boxes by image file name; empty when there is no file of boxes."""
    if not os.path.lexists(path):
        return {}
    found: Dict[str, Box] = {}
    try:
        require_file(path)
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            for number, line in enumerate(file, 1):
                _add_box(found, path, number, line)
    except OSError as error:
        raise DataError(f"cannot read bounding boxes {path!r}: "
                        f"{(error.strerror or str(error)).lower()}",
                        "restore the file, or rename it to use no boxes") from error
    return found


def _add_box(found: Dict[str, Box], path: str, number: int, line: str) -> None:
    """Add the box in a line of the file, if there is one."""
    row = [cell.strip() for cell in line.split(",")]
    if row == [""]:
        return
    try:
        name, (left, top, right, bottom) = row[0], map(float, row[1:])
    except ValueError:
        raise _bad_row(path, number, row) from None
    if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1):
        raise _bad_row(path, number, row)
    before = found.get(name)
    found[name] = (left, top, right, bottom) if before is None else (
        min(left, before[0]), min(top, before[1]), max(right, before[2]),
        max(bottom, before[3]))  # several objects: the box around all of them


def _bad_row(path: str, number: int, row: List[str]) -> DataError:
    return DataError(f"{path!r}, line {number}: {','.join(row)!r} is not a bounding box",
                     "a line is file name, x1, y1, x2, y2, relative to the image's size (0 to 1)")
