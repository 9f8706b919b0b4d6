"""`--data webdataset`: samples in tar archives, local or behind a URL."""

from __future__ import annotations

from typing import Iterable

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Offer the dataset."""
    return [DatasetSpec(
        name="webdataset", aliases=("wds",), labelled=True, needs_data_dir=True, streams=True,
        summary="samples in tar archives (shards), in a folder or streamed from a URL",
        target="ipucnn.plugins.datasets._webdataset.dataset:make",
        verify="ipucnn.plugins.datasets._webdataset.verify:verify",
        convert="ipucnn.plugins.datasets._webdataset.writer:Shards",
        markers=("metadata.json",),
        layout="--data-dir/metadata.json, --data-dir/train-000000.tar ... and "
               "--data-dir/validation-000000.tar ...; 'ipucnn data convert' makes them")]
