"""Reads folders of images, one per class, and their splits."""

from __future__ import annotations

import os
from typing import Dict, List, Optional, Sequence, Tuple

from ipucnn.core.errors import DataError
from ipucnn.data import DatasetRequest
from ipucnn.data.image_files import folders_in, list_images, printable

VALIDATION_FOLDERS = ("validation", "val", "test")


def given_folder(request: DatasetRequest, dataset: str, layout: str) -> str:
    """Return the folder that a dataset is read from.

    Raises:
        DataError: no folder is named, or it does not exist.
    """
    if request.data_dir is None:
        raise DataError(f"dataset {dataset!r} needs a folder",
                        f"name it with '--data-dir'; layout: {layout}")
    if not os.path.isdir(request.data_dir):
        raise DataError(f"folder {request.data_dir!r} does not exist", f"layout: {layout}")
    return request.data_dir


def validation_folder(root: str) -> Optional[str]:
    """Return the folder of the validation images below `root`, or None."""
    return next((os.path.join(root, name) for name in VALIDATION_FOLDERS
                 if os.path.isdir(os.path.join(root, name))), None)


def images_by_class(folder: str, layout: str,
                    classes: Sequence[str] = ()) -> Tuple[List[str], List[int], Tuple[str, ...]]:
    """Return paths, labels and class names.

    Args:
        folder: contains one folder per class.
        layout: for the error message.
        classes: class names in the order of labels; the sorted folders when empty. A class
            without a folder has no images.

    Raises:
        DataError: there are no class folders, one is empty, or is not in `classes`.
    """
    found = folders_in(folder)
    if not found:
        raise DataError(f"there are no class folders in {folder!r}", f"layout: {layout}")
    names = tuple(classes) or class_names(folder)
    numbers: Dict[str, int] = {name: number for number, name in enumerate(names)}
    paths: List[str] = []
    labels: List[int] = []
    for name in found:
        here = os.path.join(folder, name)
        label = numbers.get(printable(name))
        if label is None:
            raise DataError(f"class folder {here!r} is none of the {len(numbers)} classes that are "
                            "trained", "both splits must have the same class folders")
        images = list_images(here)
        if not images:
            raise DataError(f"class folder {here!r} has no images",
                            "add some, or remove the folder")
        paths += images
        labels += [label] * len(images)
    return paths, labels, names


def class_names(folder: str) -> Tuple[str, ...]:
    """Return the names of the classes whose folders are in `folder`, in the order of labels."""
    return tuple(printable(name) for name in folders_in(folder))
