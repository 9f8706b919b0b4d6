"""Reads COCO images with their ids, from an annotation file or from file names.

Source of both formats: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Sequence, Tuple

from ipucnn.core.errors import DataError
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.image_files import (
    IMAGE_SUFFIXES,
    FileImages,
    faults,
    folders_in,
    list_images,
)
from ipucnn.plugins.datasets._class_folders import given_folder

if TYPE_CHECKING:
    from ipucnn.plugins.datasets.coco import CocoOptions

SPLIT = "val2014"
LAYOUT = (f"image files in --data-dir, or in --data-dir/{SPLIT}/ beside --data-dir/annotations/; "
          f"{SPLIT} is at http://images.cocodataset.org/zips/{SPLIT}.zip")

# All of these files list the images of their split; the smallest ones come first.
_KINDS = ("image_info", "captions", "instances", "person_keypoints")

_OTHER_FILE = ("name another file with '--annotations', or with '--data-dir' the folder of the "
               "images itself: ids are then the numbers in their names")
_NUMBERED = re.compile(r"(?:.*_)?([0-9]{1,18})")


class CocoImages(FileImages):
    """Image files with ids.

    Args:
        paths: the files.
        ids: of each; None where it is not known.
        notes: notes for the user.
    """

    def __init__(self, paths: Sequence[str], ids: Sequence[Optional[int]],
                 notes: Tuple[str, ...] = ()) -> None:
        super().__init__(paths)
        self._ids = ids
        self.has_image_ids = any(number is not None for number in ids)
        self.notes = notes

    def image_id(self, index: int) -> Optional[int]:
        """Return the id of image `index`."""
        return self._ids[index]


def make(request: DatasetRequest, options: CocoOptions) -> ImageDataset:
    """Return the images with the ids from the annotations, where there are any.

    Raises:
        DataError: there is no such folder, no image in it, or the annotations are damaged or
            describe other images.
    """
    root = given_folder(request, "coco", LAYOUT)
    paths = image_files(root)
    annotations = options.annotations or annotations_in(root)
    if annotations is None:
        return CocoImages(paths, [number_in_name(path) for path in paths])
    known = ids_by_name(annotations)
    names = [annotated_name(known, path) for path in paths]
    ids = [None if name is None else known[name] for name in names]
    without = ids.count(None)
    if without == len(ids):
        raise DataError(f"annotations {annotations!r} have none of the {len(ids)} images in "
                        f"{root!r}", _OTHER_FILE)
    return CocoImages(paths, ids, () if not without else (
        f"{without} of {len(ids)} images are not in {annotations!r} and have no id",))


def verify(folder: str) -> List[str]:
    """Return a line for every damaged image and every mismatch of annotations and files."""
    try:
        paths = image_files(folder)
    except DataError as error:
        return [error.message]
    return [*faults(paths), *_differing(folder, paths)]


def _differing(folder: str, paths: Sequence[str]) -> Iterator[str]:
    annotations = annotations_in(folder)
    if annotations is None:
        return
    try:
        known = ids_by_name(annotations)
    except DataError as error:
        yield error.message
        return
    names = [annotated_name(known, path) for path in paths]
    for missing in sorted(set(known).difference(names)):  # type: ignore[arg-type]
        yield f"image {missing!r} of {annotations!r} does not exist"
    for path, name in zip(paths, names):
        if name is None:
            yield f"image {path!r} is not in {annotations!r}"


def image_files(root: str) -> List[str]:
    """Return the images sorted by path, those of partitions in the order of their numbers.

    Raises:
        DataError: there are none, or a folder cannot be read.
    """
    split = os.path.join(root, SPLIT)
    paths = list_images(split if os.path.isdir(split) else root)
    if not paths:
        raise DataError(f"there are no images in {root!r}",
                        f"files ending in {', '.join(IMAGE_SUFFIXES)} count; layout: {LAYOUT}")
    folders = folders_in(root)
    partitions = {str(number): number for number in range(len(folders))}
    if folders and set(folders) == set(partitions):
        paths.sort(key=lambda path: partitions.get(_first_folder(path, root), -1))
    return paths


def _first_folder(path: str, root: str) -> str:
    return os.path.relpath(path, root).split(os.sep)[0]


def annotations_in(root: str) -> Optional[str]:
    """Return an annotation file below `root`, preferably of the validation split, or None.

    Raises:
        DataError: their folder cannot be read.
    """
    folder = os.path.join(root, "annotations")
    try:
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    except OSError as error:
        raise DataError(f"cannot list folder {folder!r}: "
                        f"{(error.strerror or str(error)).lower()}") from error
    found = [name for kind in _KINDS for name in names
             if name.startswith(f"{kind}_") and name.endswith(".json")]
    found.sort(key=lambda name: not name.endswith(f"_{SPLIT}.json"))
    return os.path.join(folder, found[0]) if found else None


def ids_by_name(annotations: str) -> Dict[str, int]:
    """Return the id of each image in an annotation file, by its `file_name`.

    Raises:
        DataError: it cannot be read, or is not an annotation file.
    """
    try:
        with open(annotations, encoding="utf-8-sig") as file:
            content = json.load(file, object_pairs_hook=_about_images)
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise DataError(f"cannot read annotations {annotations!r}: {cause}",
                        _OTHER_FILE) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"annotations {annotations!r} are no JSON: {error}", _OTHER_FILE) from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise DataError(f"annotations {annotations!r} have no list 'images'", _OTHER_FILE)
    ids: Dict[str, int] = {}
    for position, image in enumerate(images):
        name, number = (image.get("file_name"), image.get("id")) if isinstance(image, dict) \
            else (None, None)
        if not isinstance(name, str) or type(number) is not int or abs(number) >= 1 << 63:
            raise DataError(f"annotations {annotations!r}: image {position} of 'images' has no "
                            "'file_name' with a whole number as its 'id'", _OTHER_FILE)
        if ids.setdefault(name, number) != number:
            raise DataError(f"annotations {annotations!r} have two ids for image {name!r}: "
                            f"{ids[name]} and {number}", _OTHER_FILE)
    return ids


def _about_images(pairs: List[Tuple[str, Any]]) -> Optional[Dict[str, Any]]:
    """Keep only the fields used here while parsing the file, and drop the rest."""
    found = dict(pairs)
    if "images" not in found and "file_name" not in found:
        return None
    return {name: found[name] for name in ("images", "file_name", "id") if name in found}


def annotated_name(known: Dict[str, int], path: str) -> Optional[str]:
    """Return the name of a file in the annotations: the longest one that its path ends in."""
    parts = os.path.abspath(path).split(os.sep)
    names = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((name for name in names if name in known), None)


def number_in_name(path: str) -> Optional[int]:
    """Return the number that a file's name ends in, as in `COCO_val2014_000000000042.jpg`."""
    found = _NUMBERED.fullmatch(os.path.splitext(os.path.basename(path))[0])
    return int(found.group(1)) if found else None
