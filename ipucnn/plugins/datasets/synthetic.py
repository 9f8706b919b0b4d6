"""`--data synthetic`: the device generates its input, to measure computation alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable

from ipucnn.core.errors import DataError
from ipucnn.core.registry.hookspecs import hookimpl
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.data import DatasetRequest, ImageDataset

if TYPE_CHECKING:
    import torch

DEFAULT_LENGTH = 60_000


class SyntheticImages(ImageDataset):
    """Images that never exist on the host."""

    ready = True

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def image(self, index: int) -> torch.Tensor:
        """Raise: there is no image."""
        raise DataError(f"image {self.name(index)!r} exists on the device only",
                        "'--data generated' makes images on the host")

    def name(self, index: int) -> str:
        """Return `synthetic/<index>`."""
        return f"synthetic/{index}"


def make(request: DatasetRequest) -> ImageDataset:
    """Return the dataset; a session with a synthetic plan is called without images."""
    return SyntheticImages(DEFAULT_LENGTH if request.length is None else request.length)


@hookimpl
def ipucnn_datasets() -> Iterable[DatasetSpec]:
    """Offer the dataset."""
    return [DatasetSpec(
        name="synthetic", finite=False, on_device=True,
        target="ipucnn.plugins.datasets.synthetic:make",
        summary="random images on the device: measures computation only")]
