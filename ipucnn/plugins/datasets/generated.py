"""`--data generated`: random images made on the host, to benchmark everything but decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable

from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.data import DatasetRequest, ImageDataset

if TYPE_CHECKING:
    import torch

DEFAULT_LENGTH = 60_000

_DIFFERENT = 1 << 16
_STRIDE = 40_503  # odd, so that it reaches every offset; near 2**16 / golden ratio, so it scatters


class GeneratedImages(ImageDataset):
    """Noise at the input size.

    An image is a window into one buffer of random bytes, so it costs nothing to make. The first
    65,536 all differ; then they repeat.
    """

    ready = True

    def __init__(self, length: int, input_size: int, seed: int) -> None:
        import numpy
        import torch

        self._length = length
        self._size = input_size
        noise = numpy.random.default_rng(seed).integers(
            0, 256, 3 * input_size**2 + _DIFFERENT, dtype=numpy.uint8)
        self._noise = torch.from_numpy(noise)

    def __len__(self) -> int:
        return self._length

    def image(self, index: int) -> torch.Tensor:
        """Return image `index`; it shares memory with others and must not be written to."""
        start = index * _STRIDE % _DIFFERENT
        pixels = self._noise[start:start + 3 * self._size**2]
        return pixels.view(self._size, self._size, 3).permute(2, 0, 1)

    def name(self, index: int) -> str:
        """Return `generated/<index>`."""
        return f"generated/{index}"


def make(request: DatasetRequest) -> ImageDataset:
    """Return random images of the model's input size."""
    length = DEFAULT_LENGTH if request.length is None else request.length
    return GeneratedImages(length, request.input_size, request.seed)


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Offer the dataset."""
    return [DatasetSpec(
        name="generated", finite=False, target="ipucnn.plugins.datasets.generated:make",
        summary="random images made on the host: measures transfers and computation")]
