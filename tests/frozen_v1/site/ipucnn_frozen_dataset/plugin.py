"""The hooks: what this distribution offers. Imports no torch."""

from typing import List

import ipucnn


@ipucnn.hookimpl
def ipucnn_datasets() -> List[ipucnn.DatasetSpec]:
    """Return the dataset."""
    return [ipucnn.DatasetSpec(
        name="frozen-dataset", summary="drawn noise: dark or light",
        target="ipucnn_frozen_dataset.dataset:FrozenDatasetDataset", labelled=True,
        options="ipucnn_frozen_dataset.options:DatasetOptions")]
