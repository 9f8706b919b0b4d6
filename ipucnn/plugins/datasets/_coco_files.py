"""Reads COCO images with their ids, from an annotation file or from file names.

Source of both formats: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Sequence, Tuple

from ipucnn.core.errors import DataError
from ipucnn.core.files import native_path, require_file
from ipucnn.core.names import composed
from ipucnn.data import DatasetRequest, ImageDataset, left_out
from ipucnn.data.image_files import (
    FileImages,
    contents,
    faults,
    folders_in,
    list_images,
    no_images,
)
from ipucnn.data.image_formats import IMAGE_SUFFIXES
from ipucnn.data.left_out import LeftOut
from ipucnn.plugins.datasets._class_folders import given_folder

if TYPE_CHECKING:
    import torch

    from ipucnn.plugins.datasets.coco import CocoOptions

LAYOUT = ("image files in --data-dir, or in --data-dir/val2017/ (or val2014) beside "
          "--data-dir/annotations/; val2017.zip and val2014.zip are at "
          "http://images.cocodataset.org/zips/")
ANNOTATIONS = "annotations"

_SPLIT = re.compile(r"val20[0-9]{2}")

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
        super().__init__(paths, notes=notes)
        self._ids = ids
        self._crop: Optional[int] = None
        self.has_image_ids = any(number is not None for number in ids)

    def image_id(self, index: int) -> Optional[int]:
        """Return the id of image `index`."""
        return self._ids[index]

    def cropped(self, size: int) -> CocoImages:
        """Return the dataset of the central `size` x `size` pixels of each image."""
        self._crop, self.ready = size, True
        return self

    def encoded(self, index: int) -> Optional[bytes]:
        """Return the file of image `index`; None if only its centre is requested."""
        return super().encoded(index) if self._crop is None else None

    def image(self, index: int) -> torch.Tensor:
        """Return image `index`, or its centre; see `ImageDataset.image`."""
        pixels = super().image(index)
        return pixels if self._crop is None else centre(pixels, self._crop)


def make(request: DatasetRequest, options: CocoOptions) -> ImageDataset:
    """Return the images with the ids from the annotations, where there are any.

    Raises:
        DataError: there is no such folder, no image in it, or the annotations are damaged or
            describe other images.
    """
    root = given_folder(request, "coco", LAYOUT)
    left = LeftOut(root)
    paths = image_files(root, left)
    annotations = options.annotations or annotations_in(root, paths)
    if annotations is None:
        found = CocoImages(paths, [number_in_name(path) for path in paths], left.notes())
    else:
        found = _annotated(paths, annotations, root, left)
    return found.cropped(request.input_size) if options.centre_crop else found


def centre(pixels: torch.Tensor, size: int) -> torch.Tensor:
    """Return the central `size` x `size` pixels of `(3, height, width)`, black beyond them.

    A margin that cannot be halved is cut as torchvision's `CenterCrop` does.
    """
    height, width = pixels.shape[1:]
    result = pixels.new_zeros(3, size, size)
    spans = []
    for length in (height, width):
        if length >= size:
            begin = round((length - size) / 2)
            spans.append((slice(begin, begin + size), slice(0, size)))
        else:
            begin = (size - length) // 2
            spans.append((slice(0, length), slice(begin, begin + length)))
    (rows, into_rows), (columns, into_columns) = spans
    result[:, into_rows, into_columns] = pixels[:, rows, columns]
    return result


def _annotated(paths: Sequence[str], annotations: str, root: str, left: LeftOut) -> CocoImages:
    """Return the images with the ids in `annotations`."""
    known = ids_by_name(annotations)
    names = [annotated_name(known, path) for path in paths]
    ids = [None if name is None else known[name] for name in names]
    without = ids.count(None)
    if without == len(ids):
        raise DataError(f"annotations {annotations!r} have none of the {len(ids)} images in "
                        f"{root!r}", _OTHER_FILE)
    return CocoImages(paths, ids, (*(() if not without else (
        f"{without} of {len(ids)} images are not in {annotations!r} and have no id",)),
        *left.notes()))


def verify(folder: str) -> List[str]:
    """Return a line for every damaged image and every mismatch of annotations and files."""
    left = LeftOut(folder)
    try:
        paths = image_files(folder, left)
    except DataError as error:
        return [error.message]
    return [*left.faults(), *faults(paths), *_differing(folder, paths)]


def _differing(folder: str, paths: Sequence[str]) -> Iterator[str]:
    try:
        annotations = annotations_in(folder, paths)
        if annotations is None:
            return
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


def image_files(root: str, left: LeftOut) -> List[str]:
    """Return the images sorted by path, those of partitions in the order of their numbers.

    Args:
        root: the folder.
        left: receives what is left out.

    Raises:
        DataError: there are none, or a folder cannot be read, or there are several validation
            splits.
    """
    folders = folders_in(root)
    splits = [name for name in folders if _SPLIT.fullmatch(name)]
    if len(splits) > 1:
        raise DataError(f"{root!r} has the images of several years: {', '.join(splits)}",
                        f"name one with '--data-dir', and '--annotations' with "
                        f"{os.path.join(root, ANNOTATIONS)!r}")
    paths = list_images(os.path.join(root, splits[0]) if splits else root, left)
    for name in [*folders, *contents(root).images] if splits else []:
        if name not in splits:
            left.add(left_out.BESIDE, os.path.join(root, name))
    left.forget(os.path.join(root, ANNOTATIONS))
    if not paths:
        raise no_images(root, left, f"files ending in {', '.join(IMAGE_SUFFIXES)} count; layout: "
                                    f"{LAYOUT}")
    partitions = {str(number): number for number in range(len(folders))}
    if folders and set(folders) == set(partitions):
        paths.sort(key=lambda path: partitions.get(_first_folder(path, root), -1))
    return paths


def _first_folder(path: str, root: str) -> str:
    return os.path.relpath(path, root).split(os.sep)[0]


def annotations_in(root: str, paths: Sequence[str]) -> Optional[str]:
    """Return the annotation file below `root` that lists the images, or None without any file.

    Files of one split (`instances_val2017.json`, `captions_val2017.json`) list the same images;
    the smallest of them is read. If the folder of the images has the name of a split, the files of
    this split are used; otherwise those of the only split with some of the images.

    Raises:
        DataError: the folder or a file cannot be read, or files of several splits list images.
    """
    folder = os.path.join(root, ANNOTATIONS)
    try:
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    except OSError as error:
        raise DataError(f"cannot list folder {folder!r}: "
                        f"{(error.strerror or str(error)).lower()}") from error
    by_split: Dict[str, str] = {}
    for kind in _KINDS:
        for name in names:
            if name.startswith(f"{kind}_") and name.endswith(".json"):
                by_split.setdefault(name[len(kind) + 1:-len(".json")],
                                    os.path.join(folder, name))
    own = _first_folder(paths[0], root)
    if own in by_split or len(by_split) < 2:
        return by_split.get(own) or next(iter(by_split.values()), None)
    counts = {split: sum(annotated_name(known, path) is not None for path in paths)
              for split, file in by_split.items() for known in [ids_by_name(file)]}
    complete = [split for split, count in counts.items() if count == len(paths)]
    some = complete or [split for split, count in counts.items() if count]
    if len(some) != 1:
        listed = ", ".join(f"{file!r} ({counts[split]})" for split, file in by_split.items())
        raise DataError(f"which annotations fit the {len(paths)} images in {root!r} is not clear; "
                        f"so many of them are in each: {listed}", _OTHER_FILE)
    return by_split[some[0]]


def ids_by_name(annotations: str) -> Dict[str, int]:
    """Return the id of each image in an annotation file, by its `file_name`.

    Names have `/` as separator, and accented letters are one character each.

    Raises:
        DataError: it cannot be read, or is not an annotation file.
    """
    try:
        require_file(annotations)
        with open(annotations, encoding="utf-8-sig") as file:
            content = json.load(file, object_pairs_hook=_about_images)
    except OSError as error:
        cause = (error.strerror or str(error)).lower()
        raise DataError(f"cannot read annotations {annotations!r}: {cause}",
                        _OTHER_FILE) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"annotations {annotations!r} are not JSON: {error}", _OTHER_FILE
                        ) from error
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
        name = composed(native_path(name.replace("\\", "/")))
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
    parts = composed(os.path.abspath(path)).split(os.sep)
    names = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((name for name in names if name in known), None)


def number_in_name(path: str) -> Optional[int]:
    """Return the number that a file's name ends in, as in `COCO_val2014_000000000042.jpg`."""
    found = _NUMBERED.fullmatch(os.path.splitext(os.path.basename(path))[0])
    return int(found.group(1)) if found else None
