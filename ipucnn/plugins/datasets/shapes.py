"""`--data shapes`: eight classes of drawn shapes, for training without a download."""

from __future__ import annotations

from typing import Iterable

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Offer the dataset."""
    return [DatasetSpec(
        name="shapes", labelled=True, target="ipucnn.plugins.datasets._shapes_drawing:make",
        summary="images of eight shapes, drawn on the fly",
        layout="none; 'ipucnn data shapes --out DIR' writes it as class folders of JPEG files")]
