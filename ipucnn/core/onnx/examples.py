"""Images to call a graph with before there are real ones."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Iterator, Tuple

import torch  # noqa: TID253

from ipucnn.core.errors import IpucnnError

if TYPE_CHECKING:
    from ipucnn.core.execution import ExecutionPlan
    from ipucnn.core.onnx.backend import Graph


def example(plan: ExecutionPlan, graph: Graph) -> torch.Tensor:
    """Return a micro-batch of random images of the type that a graph takes.

    Raises:
        IpucnnError: there is no memory for them.
    """
    batch = graph.batch or plan.micro_batch
    with memory_errors(batch):
        return random_images((batch, 3, graph.input_size, graph.input_size), graph.input_type,
                             plan.seed or 0)


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
