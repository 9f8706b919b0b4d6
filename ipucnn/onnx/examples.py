"""Images to call a graph with before there are real ones."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator, Tuple

import torch  # noqa: TID253

from ipucnn.core.errors import IpucnnError


@contextmanager
def memory_errors(micro_batch: int) -> Iterator[None]:
    """Turn torch's failure to allocate into one line with what to try."""
    try:
        yield
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        raise IpucnnError(f"there is no memory for a micro-batch of {micro_batch}",
                          "use a smaller '--batch-size'") from error


def random_images(shape: Tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Return random images, normalised or as bytes.

    Args:
        shape: `(n, 3, size, size)`.
        dtype: of the images; of uint8 they are 0 to 255.
        seed: the same gives the same images.
    """
    images = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if dtype == torch.uint8:
        images = (images * 64 + 128).clamp(0, 255)
    return images.to(dtype)
