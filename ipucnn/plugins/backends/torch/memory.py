"""How many micro-batches are computed together, and what that is allowed to take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Set

import torch  # noqa: TID253
from torch import nn  # noqa: TID253
from torch.nn.modules.batchnorm import _BatchNorm  # noqa: TID253

from ipucnn.core.execution.plan import ExecutionPlan

DEFAULT_PROPORTION = 0.25
"""Share of memory for micro-batches that are computed together, unless the plan says otherwise."""


def depends_on_batch(model: nn.Module) -> bool:
    """Return whether a sample's output depends on the others of its micro-batch.

    So it does with batch norm in training mode, and in modules that say so by a true attribute
    `batch_dependent`.
    """
    return any((isinstance(m, _BatchNorm) and m.training) or getattr(m, "batch_dependent", False)
               for m in model.modules())


def budget(plan: ExecutionPlan, place: torch.device) -> int:
    """Return the bytes that the activations of micro-batches computed together may take.

    It is a share of all memory, not of what is free, so that a resumed training groups its
    micro-batches as before.
    """
    proportions = plan.option("available_memory_proportion") or (DEFAULT_PROPORTION,)
    share = sum(proportions) / len(proportions)
    if place.type == "cuda":
        return int(share * torch.cuda.get_device_properties(place).total_memory)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(share * min(total, _group_limit() or total))


def _group_limit() -> int:
    """Return the memory limit of this process's control group, 0 without one."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            return int((Path("/sys/fs/cgroup") / name).read_text())
        except (OSError, ValueError):
            continue
    return 0


def kept_bytes(forward: Callable[[], Any]) -> int:
    """Return how many bytes a forward pass keeps for its backward pass."""
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
