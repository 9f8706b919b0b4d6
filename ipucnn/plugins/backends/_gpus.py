"""Finds the GPUs of a host and divides them among the instances of a run."""

from __future__ import annotations

import sys
from glob import glob
from typing import Optional

from ipucnn.core.execution.launching import launched


def of_instance(wanted: Optional[str]) -> Optional[str]:
    """Return the GPU of this instance if several share the GPUs of a host.

    Each instance uses the GPU that the launcher assigns; otherwise GPUs are assigned round-robin.
    """
    launch = launched()
    if wanted not in (None, "cuda") or launch is None or launch.count == 1:
        return wanted
    import torch

    if not torch.cuda.is_available():
        return wanted
    own = launch.local_index
    return f"cuda:{launch.index % torch.cuda.device_count() if own is None else own}"


def may_have_gpu() -> bool:
    """Return whether this machine may have a GPU, without importing torch, which takes a second."""
    if not sys.platform.startswith("linux"):
        return True
    # NVIDIA's driver, on boards (Tegra) and in WSL, and AMD's
    return any(glob(f"/dev/{name}") for name in ("nvidia*", "nvhost*", "nvmap", "dxg", "kfd"))
