"""`--data imagenet`: ImageNet as raw folders."""

from __future__ import annotations

from typing import Iterable

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Offer the dataset."""
    return [DatasetSpec(
        name="imagenet", aliases=("imagenet-raw",), labelled=True, needs_data_dir=True,
        also=("webdataset",), train_samples=1_281_167,
        summary="ImageNet (ILSVRC 2012) as raw folders, with bounding boxes if present",
        target="ipucnn.plugins.datasets._imagenet_files:make",
        verify="ipucnn.plugins.datasets._imagenet_files:verify",
        markers=("train/n" + 8 * "[0-9]",),
        layout="--data-dir/train/<class>/ and --data-dir/validation/<class>/ (or val/); optionally "
               "--data-dir/imagenet_2012_bounding_boxes.csv")]
