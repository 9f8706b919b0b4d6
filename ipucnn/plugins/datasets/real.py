"""`--data real`: any images in a folder, without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.plugins.datasets._cache_options import CacheOptions

DEFAULT_FOLDER = "data/images"
"""The folder of `ipucnn data fetch sample-images`."""


@dataclass(frozen=True)
class RealOptions(CacheOptions):
    """Options of images on a store."""


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Return the record of the dataset."""
    return [DatasetSpec(
        name="real", summary="any images in a folder, without labels",
        target="ipucnn.plugins.datasets._unlabelled_images:make",
        verify="ipucnn.plugins.datasets._unlabelled_images:verify",
        default_data_dir=DEFAULT_FOLDER, stores=True,
        options=RealOptions,
        layout=f"image files at any depth below --data-dir ({DEFAULT_FOLDER} when not given), or "
               "one image file")]
