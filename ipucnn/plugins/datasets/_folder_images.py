"""Opens folders of labelled images: the classes are folders, or named in a file."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

from ipucnn.core.errors import DataError, NoSplitError
from ipucnn.core.files import name_text
from ipucnn.data import DatasetRequest, check_classes
from ipucnn.data.image_files import FileImages, faults, list_images
from ipucnn.data.images import read_file
from ipucnn.data.left_out import LeftOut
from ipucnn.plugins.datasets import _copies, _held_out
from ipucnn.plugins.datasets._cache_options import on_store
from ipucnn.plugins.datasets._class_folders import (
    Layout,
    class_names,
    find_layout,
    given_folder,
    images_by_class,
)
from ipucnn.plugins.datasets._listed_images import listed_images
from ipucnn.plugins.datasets.image_folder import LAYOUT, ImageFolderOptions

ItemT = TypeVar("ItemT")

_HINT = f"{LAYOUT}; '--data real' takes images without classes"


def make(request: DatasetRequest, options: Optional[ImageFolderOptions] = None) -> FileImages:
    """Return the images in the class folders of `data_dir`, of one split where it has splits.

    Raises:
        DataError: the folder is missing, its layout is not recognised, a class has no images, or
            there are more classes than the model has outputs.
    """
    options = options or ImageFolderOptions()
    stored = on_store(request.data_dir, options)
    root = stored.root if stored else given_folder(request, "image_folder", LAYOUT)
    read = stored.read if stored else read_file
    if options.labels:
        return listed_images(root, request, options, read)
    layout = find_layout(root)
    return _of_layout(root, layout, request, options, read)


def _of_layout(root: str, layout: Layout, request: DatasetRequest,
               options: ImageFolderOptions, read: Callable[[str], bytes]) -> FileImages:
    place, share = _part(root, layout, request, options.validation_split)
    classes = request.class_names or class_names(layout.train or place)
    paths, labels, names = images_by_class(place, _HINT, classes, layout.left)
    check_classes(repr(root), names, request.num_classes)
    notes: Tuple[str, ...] = layout.notes
    if options.validation_split and layout.validation is not None:
        notes = (*notes, _held_out.no_effect(
            request, f"{name_text(root)!r} has validation images in "
                     f"{name_text(layout.validation)!r}"))
    if request.split is None and place == layout.validation and layout.train is not None:
        notes = (*notes, f"the validation images are read, those in {name_text(place)!r}")
    if share:
        kept = _held_out.held_out([os.path.relpath(path, place) for path in paths], labels, share,
                                  request.seed)
        notes = (*notes, _held_out.note(name_text(place), kept, labels,
                                        options.validation_split is not None))
        wanted = [held == (request.split == "validation") for held in kept]
        paths = _chosen(paths, wanted)
        labels = _chosen(labels, wanted)
    images = FileImages(paths, labels, names, (*notes, *layout.left.notes()), read)
    if share:
        images.split, images.held_out = str(request.split), True
    elif layout.divided:
        images.split = "validation" if place == layout.validation else "train"
    return images


def _part(root: str, layout: Layout, request: DatasetRequest,
          given: Optional[float]) -> Tuple[str, float]:
    """Return the folder of the requested split, and the share of it that is held out."""
    if layout.validation is not None:
        if request.split != "train":
            return layout.validation, 0.0
        if layout.train is None:
            raise NoSplitError(f"there are no training images in {root!r}, only validation images "
                               f"in {name_text(layout.validation)!r}", f"layout: {LAYOUT}")
        return layout.train, 0.0
    share = _held_out.share_of(request, given)
    if request.split == "validation" and not share:
        raise _held_out.no_split(root, LAYOUT)
    return layout.train or layout.place, share


def _chosen(items: Sequence[ItemT], wanted: Sequence[bool]) -> List[ItemT]:
    return [item for item, taken in zip(items, wanted) if taken]


def unverified(folder: str) -> List[str]:
    """Return notes on images that are there several times."""
    parts: Dict[str, FileImages] = {}
    for split in ("train", "validation"):
        with suppress(DataError):  # a problem, which `verify` reports
            parts[split] = make(DatasetRequest(data_dir=folder, split=split))
    return _copies.notes(folder, parts)


def verify(folder: str) -> List[str]:
    """Return one line for every damaged image and every error of the layout."""
    problems: List[str] = []
    for split in ("train", None):
        try:
            make(DatasetRequest(data_dir=folder, split=split))
        except NoSplitError:  # a folder of validation images only
            continue
        except DataError as error:
            problems.append(error.message)
    left = LeftOut(folder)
    images = list_images(folder, left)
    return list(dict.fromkeys([*problems, *left.faults(), *faults(images)]))
