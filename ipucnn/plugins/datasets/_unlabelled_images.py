"""The images in a folder, without labels: the dataset `real`."""

from __future__ import annotations

import os
from typing import List, Optional

from ipucnn.core.errors import DataError
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.image_files import FileImages, faults, list_images, no_images
from ipucnn.data.image_formats import IMAGE_SUFFIXES, may_be_image
from ipucnn.data.images import read_file
from ipucnn.data.left_out import LeftOut, unpacking
from ipucnn.plugins.datasets._cache_options import CacheOptions, on_store
from ipucnn.plugins.datasets.real import DEFAULT_FOLDER

_WAYS = ("download sample images with 'make get_data' or 'ipucnn data fetch sample-images', draw "
         "some with 'ipucnn data shapes --out DIR', or name your own folder with '--data-dir'")
_NAMED = ("check its name; 'ipucnn data fetch sample-images' downloads sample images, and "
          "'ipucnn data shapes --out DIR' draws some")


def make(request: DatasetRequest, options: Optional[CacheOptions] = None) -> ImageDataset:
    """Return the images in the folder, or the one image that `data_dir` names.

    Raises:
        DataError: there is no such folder, or no image in it.
    """
    place = request.data_dir or DEFAULT_FOLDER
    stored = on_store(place, options or CacheOptions())
    place = stored.root if stored else place
    if os.path.isfile(place):
        if not may_be_image(place):
            raise DataError(f"{place!r} is not an image file", unpacking(
                place, "name an image or a folder; for shards and lists of images, the folder that "
                "contains them"))
        return FileImages([place])
    if not stored and not os.path.isdir(place):
        raise DataError(f"image folder {place!r} does not exist",
                        _NAMED if request.data_dir else _WAYS)
    left = LeftOut(place)
    paths = list_images(place, left)
    if not paths:
        raise no_images(place, left, f"files ending in {', '.join(IMAGE_SUFFIXES)} count; {_WAYS}")
    return FileImages(paths, notes=left.notes(), read=stored.read if stored else read_file)


def verify(folder: str) -> List[str]:
    """Return a line for every damaged image, or for a folder without images."""
    left = LeftOut(folder)
    paths = list_images(folder, left)
    if not paths:
        return [no_images(folder, left, "").message]
    return [*left.faults(), *faults(paths)]
