"""`--data coco`: COCO val2014, whose images have ids."""

from __future__ import annotations

from typing import Iterable

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Offer the dataset."""
    files = "ipucnn.plugins.datasets._coco_files:"
    return [DatasetSpec(
        name="coco", needs_data_dir=True, annotations=True, target=f"{files}make",
        summary="COCO val2014: images without classes, with their ids", verify=f"{files}verify",
        markers=("COCO_*_[0-9]*.jpg", "*/COCO_*_[0-9]*.jpg", "annotations/instances_*.json"),
        layout="image files in --data-dir, in --data-dir/val2014/ or in the folders of 'ipucnn "
               "data partition'; optionally --data-dir/annotations/*_val2014.json")]
