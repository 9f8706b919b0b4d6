"""`--data image_folder`: labelled images, one folder per class, or classes named in a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional

from ipucnn.core.options.attributes import TRAINING
from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.plugins.datasets._cache_options import CacheOptions

LAYOUT = ("--data-dir/<class>/ with image files at any depth, or such folders in --data-dir/train "
          "and --data-dir/validation (or val, valid, test); or image files whose classes are in "
          "the file '--labels'; classes are numbered in sorted order")


@dataclass(frozen=True)
class ImageFolderOptions(CacheOptions):
    """Options of folders of labelled images."""

    labels: Optional[str] = option(
        None, "CSV file with file names and labels, instead of class folders; '|' separates "
        "several labels.", metavar="FILE.csv")
    validation_split: Optional[float] = option(
        None, "Share of each class held out for validation (default: 0.1).", minimum=0.0,
        maximum=0.9, only=TRAINING, validation=True, fixed="state")


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Return the record of the dataset."""
    files = "ipucnn.plugins.datasets._folder_images:"
    return [DatasetSpec(
        name="image_folder", summary="labelled images, one folder per class", labelled=True,
        needs_data_dir=True, target=f"{files}make", layout=LAYOUT, verify=f"{files}verify",
        unverified=f"{files}unverified", markers=("*/*",), options=ImageFolderOptions, stores=True)]
