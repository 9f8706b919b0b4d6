"""`--data image_folder`: labelled images, one folder per class."""

from __future__ import annotations

import os
from typing import Iterable, List

from ipucnn.core.errors import DataError, NoSplitError
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.data import DatasetRequest, ImageDataset, check_classes
from ipucnn.data.image_files import FileImages, faults, folders_in, list_images
from ipucnn.plugins.datasets._class_folders import (
    class_names,
    given_folder,
    images_by_class,
    validation_folder,
)

LAYOUT = ("--data-dir/<class>/ with image files at any depth, or such folders in "
          "--data-dir/train and --data-dir/validation; classes are numbered in sorted order")
_HINT = f"{LAYOUT}; '--data real' takes images without classes"


def make(request: DatasetRequest) -> ImageDataset:
    """Return the images in the class folders of `data_dir`, of one split where it has splits.

    Raises:
        DataError: the folder is missing or has no class folders, a class has no images, or there
            are more classes than the model has outputs.
    """
    root = given_folder(request, "image_folder", LAYOUT)
    train, validation = os.path.join(root, "train"), validation_folder(root)
    place, classes, split = root, request.class_names, ""
    if os.path.isdir(train) and validation is not None:
        split = "train" if request.split == "train" else "validation"
        place = train if split == "train" else validation
        classes = classes or class_names(train)
    elif request.split == "validation":
        raise NoSplitError(f"there are no validation images in {root!r}",
                           f"layout: {LAYOUT}; or name their folder with '--validation-data-dir', "
                           "or add '--no-validation'")
    elif request.split == "train" and folders_in(root) == ["train"] and folders_in(train):
        place, split = train, "train"
    paths, labels, names = images_by_class(place, _HINT, classes)
    check_classes(repr(root), names, request.num_classes)
    images = FileImages(paths, labels, names)
    images.split = split
    return images


def verify(folder: str) -> List[str]:
    """Return one line for every damaged image and for every fault of the layout."""
    problems = []
    for split in ("train", "validation") if validation_folder(folder) else ("train",):
        try:
            make(DatasetRequest(data_dir=folder, split=split))
        except DataError as error:
            problems.append(error.message)
    return list(dict.fromkeys([*problems, *faults(list_images(folder))]))


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Offer the dataset."""
    return [DatasetSpec(
        name="image_folder", summary="labelled images, one folder per class", labelled=True,
        needs_data_dir=True, target="ipucnn.plugins.datasets.image_folder:make", layout=LAYOUT,
        verify="ipucnn.plugins.datasets.image_folder:verify", markers=("*/*",))]
