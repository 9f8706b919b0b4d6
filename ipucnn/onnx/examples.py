"""Creates random example images for tracing and compiling a graph."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Iterator, Tuple

import torch

from ipucnn.core.errors import IpucnnError


@contextmanager
def memory_errors(micro_batch: int) -> Iterator[None]:
    """Convert torch's allocation errors into a one-line error with a hint."""
    try:
        yield
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        raise IpucnnError(f"there is no memory for a micro-batch of {micro_batch}",
                          "use a smaller '--batch-size'") from error


def random_images(shape: Tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Return random images, normalised or uint8.

    Args:
        shape: `(n, 3, size, size)`.
        dtype: of the images; uint8 images are 0 to 255.
        seed: of the random numbers.
    """
    images = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if dtype == torch.uint8:
        images = (images * 64 + 128).clamp(0, 255)
    return images.to(dtype)
