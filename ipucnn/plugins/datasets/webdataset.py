"""`--data webdataset`: samples in tar archives, local or behind a URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable

from ipucnn.core.options.declaration import option
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.plugins.datasets._cache_options import CacheOptions


@dataclass(frozen=True)
class WebDatasetOptions(CacheOptions):
    """Options of shards behind a URL, and of those in a folder."""

    webdataset_memory_cache_ratio: float = option(
        0.0, "Share of the shards in a folder that the operating system is requested to read into "
        "its page cache at the start, beginning with the first shard.",
        minimum=0.0, maximum=1.0, machine=True)


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Offer the dataset."""
    return [DatasetSpec(
        name="webdataset", aliases=("wds",), labelled=True, needs_data_dir=True, streams=True,
        options=WebDatasetOptions,
        summary="samples in tar archives (shards), in a folder or streamed from a URL",
        target="ipucnn.plugins.datasets._webdataset.dataset:make",
        verify="ipucnn.plugins.datasets._webdataset.verify:verify",
        unverified="ipucnn.plugins.datasets._webdataset.verify:unverified",
        convert="ipucnn.plugins.datasets._webdataset.writer:Shards",
        markers=("metadata.json",),
        layout="--data-dir/metadata.json, --data-dir/train-000000.tar ... and "
               "--data-dir/validation-000000.tar ...; 'ipucnn data convert' makes them")]
