"""Prepares samples from cached pixels, with results identical to those without a cache.

The cache contains the pixels before random augmentation: an image as its decoder returns it for a
crop, at full size or reduced by the factor that the crop allows. Without random augmentation,
images are cached at the input size. Damaged images are not cached, so that they are reported each
time.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Iterable, Optional, Tuple

from ipucnn.core.errors import DataError
from ipucnn.data.images import decode_pixels, decode_whole
from ipucnn.data.jpeg import Part
from ipucnn.data.pixel_store import FACTORS, ONLY, PREPARED, PixelStore

if TYPE_CHECKING:
    from ipucnn.data.prepare import Drawn, Preparation
    from ipucnn.data.resize import Pixels

    Whole = Tuple[Pixels, Tuple[int, int]]
    Source = Tuple[Pixels, Optional[Tuple[int, int]]]


class PixelCache:
    """Provides the pixels of samples for a `Preparation`, and caches decoded images.

    Args:
        store: the storage of the cache.
    """

    def __init__(self, store: PixelStore) -> None:
        self.store = store

    def __call__(self, preparation: Preparation, index: int, drawn: Optional[Drawn]) -> Pixels:
        """Return the pixels of a sample at the input size.

        Args:
            preparation: of the samples.
            index: of the sample.
            drawn: its random draw; None without random changes.

        Raises:
            DataError: the image cannot be read.
            PluginError: the dataset returned an image of the wrong type.
        """
        image = preparation.dataset.original(index)
        if drawn is None:
            return self._prepared(preparation, index, image)
        part: Optional[Part] = None
        size = self.store.size(image)
        if size is not None:
            part = drawn.wanted(*size)
        pixels = self.store.read(image, FACTORS[part.by] if part else ONLY)
        if pixels is not None:
            return preparation.transformed(pixels, size, drawn)
        return preparation.transformed(*self._decoded(preparation, index, drawn, part), drawn)

    def size(self, preparation: Preparation, index: int) -> Optional[Tuple[int, int]]:
        """Return height and width of a sample's image if the cache has them."""
        return self.store.size(preparation.dataset.original(index))

    def _prepared(self, preparation: Preparation, index: int, image: int) -> Pixels:
        pixels = self.store.read(image, PREPARED)
        if pixels is not None:
            return pixels
        data = preparation.read(index)
        if data is None:
            found: Optional[Source] = preparation.decoded(None, index, None)
        else:
            found = self._whole(image, data, partial(preparation.dataset.name, index), None)
            if found is None:
                return preparation.transformed(*preparation.decoded(data, index, None), None)
        assert found is not None
        pixels = preparation.transformed(*found, None)
        self.store.add(image, PREPARED, pixels, (0, 0))
        return pixels

    def _whole(self, image: int, data: bytes, name: Any, wanted: Any) -> Optional[Whole]:
        """Return a whole image; None if it is damaged and not cached."""
        if self.store.never(image):
            return None
        try:
            found = decode_whole(data, name, wanted)
        except DataError:
            found = None
        if found is None:
            self.store.leave_out(image)
        return found

    def _decoded(self, preparation: Preparation, index: int, drawn: Drawn,
                 part: Optional[Part]) -> Source:
        """Decode an image that is not in the cache, add it to the cache, and return its pixels.

        Args:
            preparation: of the samples.
            index: of the sample.
            drawn: its random draw.
            part: the part that the draw needs, if already known.
        """
        image = preparation.dataset.original(index)
        data = preparation.read(index)
        if data is None:
            pixels, size = preparation.decoded(None, index, drawn)
            self.store.add(image, ONLY, pixels, pixels.shape[:2])
            return pixels, size

        def wanted(height: int, width: int) -> Part:
            nonlocal part
            if part is None:  # a draw is used once
                part = drawn.wanted(height, width)
            return part

        def whole(height: int, width: int) -> Part:
            return Part(height, wanted(height, width).by)

        name = partial(preparation.dataset.name, index)
        found = self._whole(image, data, name, whole)
        if found is None:
            return decode_pixels(data, name, wanted)
        self.store.add(image, ONLY if part is None else FACTORS[part.by], *found)
        return found


def sampled(preparation: Preparation, cache: PixelCache, order: Iterable[int],
            epochs: int = 3) -> float:
    """Return the mean number of bytes of an image in the cache, by adding some images.

    Args:
        preparation: of the samples.
        cache: the cache.
        order: of the samples; the first ones of an epoch.
        epochs: how many draws of each are made.
    """
    import numpy

    preparation = replace(preparation, cache=cache)
    out = numpy.empty(preparation.shape, preparation.type)
    indices = list(order)
    for index in indices:
        for epoch in range(epochs if preparation.transform else 1):
            try:
                preparation(index, epoch, out)
            except DataError:  # reported when it is trained on
                break
    images = {preparation.dataset.original(index) for index in indices}
    return cache.store.stored(sorted(images)) / max(1, len(images))
