"""`--data image_folder`: labelled images, one folder per class."""

from __future__ import annotations

import os
from typing import Iterable, List

from ipucnn.core.data import DatasetRequest, ImageDataset, check_classes
from ipucnn.core.data.image_files import FileImages, folders_in, list_images, printable
from ipucnn.core.errors import DataError
from ipucnn.core.hookspecs import hookimpl
from ipucnn.core.specs import DatasetSpec

LAYOUT = "--data-dir/<class>/ with image files at any depth; classes are numbered in sorted order"


def make(request: DatasetRequest) -> ImageDataset:
    """Return the images in the class folders of `data_dir`.

    Raises:
        DataError: the folder is missing or has no class folders, a class has no images, or there
            are more classes than the model has outputs.
    """
    root = request.data_dir
    if root is None:
        raise DataError("dataset 'image_folder' needs a folder",
                        f"name it with '--data-dir'; layout: {LAYOUT}")
    if not os.path.isdir(root):
        raise DataError(f"image folder {root!r} does not exist", f"layout: {LAYOUT}")
    classes = folders_in(root)
    if not classes:
        raise DataError(f"there are no class folders in {root!r}",
                        f"layout: {LAYOUT}; '--data real' takes images without classes")
    paths: List[str] = []
    labels: List[int] = []
    for label, name in enumerate(classes):
        found = list_images(os.path.join(root, name))
        if not found:
            raise DataError(f"class folder {os.path.join(root, name)!r} has no images",
                            "add some, or remove the folder")
        paths += found
        labels += [label] * len(found)
    class_names = tuple(printable(name) for name in classes)
    check_classes(repr(root), class_names, request.num_classes)
    return FileImages(paths, labels, class_names)


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Offer the dataset."""
    return [DatasetSpec(
        name="image_folder", summary="labelled images, one folder per class", labelled=True,
        needs_data_dir=True, target="ipucnn.plugins.datasets.image_folder:make", layout=LAYOUT)]
