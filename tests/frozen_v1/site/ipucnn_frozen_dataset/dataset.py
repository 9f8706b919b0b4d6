"""The dataset; imported when it is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from ipucnn.plugin import DatasetRequest, ImageDataset

if TYPE_CHECKING:
    from ipucnn_frozen_dataset.options import DatasetOptions


class FrozenDatasetDataset(ImageDataset):
    """Drawn images of noise, dark or light.

    To read files, raise `ipucnn.plugin.DataError` naming the file that cannot be read.
    """

    class_names = ("dark", "light")
    ready = True  # images have the input size, so nothing is resized

    def __init__(self, request: DatasetRequest, options: DatasetOptions) -> None:
        self._size = request.input_size
        self._seed = 2 * request.seed + (request.split == "validation")
        self._length = request.length or options.frozen_dataset_images
        self.split = request.split or ""

    def __len__(self) -> int:
        return self._length

    def name(self, index: int) -> str:
        """Return the identifier of an image."""
        return f"frozen-dataset/{index}"

    def label(self, index: int) -> int:
        """Return the class of an image."""
        return index % len(self.class_names)

    def image(self, index: int) -> torch.Tensor:
        """Return an image, uint8, `(3, size, size)`."""
        # several threads read: an image depends on seed, index and options alone
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        darkest = 128 * self.label(index)
        return torch.randint(darkest, darkest + 128, (3, self._size, self._size),
                             dtype=torch.uint8, generator=generator)
