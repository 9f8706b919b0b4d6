"""Computes the memory budget of micro-batches that are computed together."""

from __future__ import annotations

from typing import Any, Callable, Sequence, Set

import torch

from ipucnn.core.machine import memory_limit

DEFAULT_PROPORTION = 0.25
"""Proportion of memory for micro-batches that are computed together, by default."""


def budget(proportions: Sequence[float], place: torch.device) -> int:
    """Return the bytes that the activations of micro-batches computed together may take.

    It is a proportion of all memory, not of the free memory, so that a resumed training groups its
    micro-batches as before.

    Args:
        proportions: those of `--available-memory-proportion`; `DEFAULT_PROPORTION` when empty.
        place: the device.
    """
    proportions = proportions or (DEFAULT_PROPORTION,)
    share = sum(proportions) / len(proportions)
    if place.type == "cuda":
        return int(share * torch.cuda.get_device_properties(place).total_memory)
    return int(share * memory_limit())


def kept_bytes(forward: Callable[[], Any]) -> int:
    """Return the number of bytes that a forward pass saves for its backward pass."""
    seen: Set[int] = set()
    total = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        weight = tensor.is_leaf and tensor.requires_grad
        if not weight and storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            total += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = forward()
    del output
    return total
