"""Finds the GPUs of a host and divides them among the instances of a run."""

from __future__ import annotations

import os
import sys
from glob import glob
from typing import Optional

from ipucnn.core.execution.launching import launched

_VISIBLE = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
"""Variables of the drivers that restrict the GPUs of a process."""


def of_instance(wanted: Optional[str]) -> Optional[str]:
    """Return the GPU of this instance if several share the GPUs of a host.

    Each instance uses the GPU with its local rank, or the only one that is visible to it; without
    local ranks, GPUs are assigned round-robin.
    """
    launch = launched()
    if wanted not in (None, "cuda") or launch is None or launch.count == 1:
        return wanted
    import torch

    if not torch.cuda.is_available():
        return wanted
    count, own = torch.cuda.device_count(), launch.local_index
    if own is None:
        return f"cuda:{launch.index % count}"
    # a scheduler may make only its own GPU visible to each process ('srun --gpus-per-task 1')
    restricted = count == 1 and any(os.environ.get(name) for name in _VISIBLE)
    return f"cuda:{0 if restricted else own}"


def may_have_gpu() -> bool:
    """Return whether this machine may have a GPU, without importing torch, which takes a second."""
    if not sys.platform.startswith("linux"):
        return True
    # NVIDIA's driver, on boards (Tegra) and in WSL, and AMD's
    return any(glob(f"/dev/{name}") for name in ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd"))
