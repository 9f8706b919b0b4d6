"""Prepares single samples for a model, in any thread or process."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Optional, Protocol, Sequence, Tuple

from ipucnn.core.errors import DataError, PluginError
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.data import ImageDataset
from ipucnn.data.dataset_checks import file_of, image_of, who
from ipucnn.data.images import decode_pixels
from ipucnn.data.jpeg import Part
from ipucnn.data.resize import eval_transform

if TYPE_CHECKING:
    from ipucnn.data.resize import Pixels

    Decoded = Tuple[Pixels, Optional[Tuple[int, int]]]

PIXELS = ("uint8", "float", "normalised")
"""Pixel formats of a batch: 0 to 255 as uint8 or float32, or float32 normalised for the network."""


class Drawn(Protocol):
    """The random draw for one sample of one epoch."""

    def wanted(self, height: int, width: int) -> Part:
        """Return the part of an image of this size that is needed; called before `__call__`.

        Further calls have the same size and return the same.
        """

    def __call__(self, pixels: Pixels, size: Optional[Tuple[int, int]] = None) -> Pixels:
        """Return the transformed pixels; `size` is the whole image's if they are a part of it."""


class Transform(Protocol):
    """Transforms training images, deterministically for a sample and epoch."""

    def draw(self, index: int, epoch: int) -> Drawn:
        """Return the random draw for a sample."""


class Cache(Protocol):
    """A cache of decoded pixels."""

    def __call__(self, preparation: Preparation, index: int, drawn: Optional[Drawn]) -> Pixels:
        """Return the pixels of a sample at the input size."""

    def size(self, preparation: Preparation, index: int) -> Optional[Tuple[int, int]]:
        """Return height and width of a sample's image; None if it is not cached."""


@dataclass(frozen=True)
class Preparation:
    """Prepares a sample for a model; the result is the same in any thread or process.

    Attributes:
        dataset: where images come from.
        preprocessing: of the network.
        transform: transforms an image of the dataset to the input size; None for the transform of
            evaluation.
        pixels: the pixel format, one of `PIXELS`.
        cache: a cache of decoded pixels, or None.
    """

    dataset: ImageDataset
    preprocessing: Preprocessing
    transform: Optional[Transform] = None
    pixels: str = "uint8"
    cache: Optional[Cache] = None

    @property
    def shape(self) -> Tuple[int, int, int]:
        """Height, width and channels of the result."""
        return self.preprocessing.input_size, self.preprocessing.input_size, 3

    @property
    def type(self) -> str:
        """The name of the pixels' data type."""
        return "uint8" if self.pixels == "uint8" else "float32"

    def __call__(self, index: int, epoch: int, out: Any) -> None:
        """Write the pixels of a sample into `out`, an array of `shape` and `type`.

        Raises:
            DataError: the image cannot be read.
            PluginError: the dataset returned an image of the wrong type or size.
        """
        self.write(index, self.drawn(index, epoch), out)

    def write(self, index: int, drawn: Optional[Drawn], out: Any) -> None:
        """Do the same with a random draw that was made before; see `all_drawn`."""
        if self.cache is not None:
            pixels = self.cache(self, index, drawn)
        else:
            found = self.decoded(self.read(index), index, drawn)
            pixels = self.transformed(*found, drawn)
        self.put(pixels, index, out)

    def drawn(self, index: int, epoch: int) -> Optional[Drawn]:
        """Return the transform's draw for a sample; None without a transform."""
        return None if self.transform is None else self.transform.draw(index, epoch)

    def all_drawn(self, indices: Sequence[int], epoch: int) -> Sequence[Optional[Drawn]]:
        """Return the draws for several samples, with their crops where the cache has the sizes.

        Drawn image by image, those of small images take longer: the code of each step displaces
        that of the others from the processor's caches.
        """
        if self.transform is None:
            return [None] * len(indices)
        draws = [self.transform.draw(index, epoch) for index in indices]
        if self.cache is not None:
            for index, drawn in zip(indices, draws):
                size = self.cache.size(self, index)
                if size is not None:
                    with suppress(DataError):  # raised again when the sample is prepared
                        drawn.wanted(*size)
        return draws

    def read(self, index: int) -> Optional[bytes]:
        """Return the file of a sample; None where the dataset stores or generates pixels."""
        # the dataset may check images that evaluation uses unchanged
        as_it_is = self.transform is None and self.dataset.ready
        return None if as_it_is else file_of(self.dataset, index)

    def decoded(self, data: Optional[bytes], index: int, drawn: Optional[Drawn]) -> Decoded:
        """Return the pixels of a sample, and height and width of the image they are a part of."""
        if data is not None:
            return decode_pixels(data, partial(self.dataset.name, index),
                                 None if drawn is None else drawn.wanted)
        image = image_of(self.dataset, index)
        return image.permute(1, 2, 0).numpy(), None

    def transformed(self, pixels: Pixels, size: Optional[Tuple[int, int]],
                    drawn: Optional[Drawn]) -> Pixels:
        """Return the pixels at the input size."""
        if drawn is not None:
            return drawn(pixels, size)
        return pixels if self.dataset.ready else eval_transform(
            pixels, self.preprocessing)

    def put(self, pixels: Pixels, index: int, out: Any) -> None:
        """Write the pixels into `out` in the pixel format."""
        if pixels.shape != self.shape:
            raise PluginError(f"{who(self.dataset)} returned {self.dataset.name(index)!r} with "
                              f"{pixels.shape[1]}x{pixels.shape[0]} pixels, expected the input "
                              f"size, {self.preprocessing.input_size}")
        if self.preprocessing.channel_order == "bgr":
            pixels = pixels[:, :, ::-1].copy()
        if self.pixels == "normalised":
            normalise_into(pixels, out, self.preprocessing)
        else:
            out[...] = pixels


def normalise_into(pixels: Pixels, out: Any, preprocessing: Preprocessing) -> None:
    """Normalise one image into `out`, as `ipucnn.data.normalisation.normalise` does.

    Args:
        pixels: uint8 array, `(height, width, 3)`.
        out: float32 array of that shape.
        preprocessing: of the network.
    """
    import numpy

    height, width, channels = pixels.shape
    scale, shift = _rows(width, preprocessing)
    # whole rows at once: the innermost dimension should be long
    rows = out.reshape(height, width * channels)
    numpy.multiply(pixels.reshape(height, width * channels), scale, out=rows)
    numpy.subtract(rows, shift, out=rows)


@lru_cache(maxsize=4)
def _rows(width: int, preprocessing: Preprocessing) -> Tuple[Any, Any]:
    """Return scale and shift of each value in a row of pixels: x becomes x*scale - shift."""
    import numpy

    low, high = (numpy.float32(value) for value in preprocessing.value_range)
    mean, std = (numpy.array(values, numpy.float32)
                 for values in (preprocessing.mean, preprocessing.std))
    return (numpy.tile((high - low) / (numpy.float32(255) * std), width),
            numpy.tile((mean - low) / std, width))
