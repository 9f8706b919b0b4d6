"""`--data coco`: COCO's validation images, which have ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional

from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec


@dataclass(frozen=True)
class CocoOptions:
    """Options of COCO."""

    annotations: Optional[str] = option(
        None, "COCO annotation file for the image ids in the predictions (default: the file in "
        "the folder 'annotations' of '--data-dir' that lists the images, or else the numbers in "
        "the names of the images).", metavar="FILE.json", needs="predictions")
    centre_crop: bool = option(
        False, "Crop the centre of each image without resizing, as the old bulk inference did "
        "(default: as in the evaluation of the weights).", names=("--center-crop",))


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Offer the dataset."""
    files = "ipucnn.plugins.datasets._coco_files:"
    return [DatasetSpec(
        name="coco", needs_data_dir=True, options=CocoOptions, target=f"{files}make",
        summary="COCO val2017 or val2014: images without classes, with their ids",
        verify=f"{files}verify",
        markers=("COCO_*_[0-9]*.jpg", "*/COCO_*_[0-9]*.jpg", "annotations/instances_*.json"),
        layout="image files in --data-dir, in --data-dir/val2017/ (or val2014) or in the folders "
               "of 'ipucnn data partition'; optionally --data-dir/annotations/*_val2017.json")]
