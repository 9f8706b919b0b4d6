"""The dataset; imported when it is opened."""

import torch

from ipucnn.plugin import ImageDataset


class Stripes(ImageDataset):
    """Generated images of stripes; the classes are the three directions of the stripes.

    Args:
        request: the input size, the seed and other arguments (`ipucnn.plugin.DatasetRequest`).
        options: the period of the stripes (`options.StripesOptions`).
    """

    class_names = ("horizontal", "vertical", "diagonal")
    ready = True  # images have the input size, so nothing is resized

    def __init__(self, request, options):
        self._size, self._seed = request.input_size, request.seed
        self._period = options.stripe_period
        self._length = request.length or 300

    def __len__(self):
        return self._length

    def label(self, index):
        """Return the class of image `index`."""
        return index % len(self.class_names)

    def name(self, index):
        """Return the identifier of image `index`."""
        return f"stripes/{index}"

    def image(self, index):
        """Return image `index`, uint8, `(3, size, size)`."""
        # a separate generator: the image depends on seed and index only
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        drawn = int(torch.randint(4, 12, (), generator=random))
        half = (self._period or 2 * drawn) / 2
        light = torch.randint(128, 256, (3, 1, 1), generator=random)
        row = torch.arange(self._size).view(-1, 1)
        column = torch.arange(self._size).view(1, -1)
        position = (row + 0 * column, column + 0 * row, row + column)[self.label(index)]
        return ((position // half % 2) * light).to(torch.uint8)
