"""The options that the plugin declares. Imports no torch."""

from dataclasses import dataclass

import ipucnn


@dataclass(frozen=True)
class DatasetOptions:
    """Options of the dataset."""

    frozen_dataset_images: int = ipucnn.option(
        200, "Images that are drawn for an epoch.", minimum=1)
