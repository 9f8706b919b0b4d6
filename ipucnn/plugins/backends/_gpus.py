"""Divides the GPUs of a host among the instances of a run."""

from __future__ import annotations

from typing import Optional

from ipucnn.core.execution.launching import launched


def of_instance(wanted: Optional[str]) -> Optional[str]:
    """Return the GPU of this instance, where several share the GPUs of a host.

    Each takes one of its own where the launcher gives it one, and otherwise they take turns.
    """
    launch = launched()
    if wanted not in (None, "cuda") or launch is None or launch.count == 1:
        return wanted
    import torch

    if not torch.cuda.is_available():
        return wanted
    own = launch.local_index
    return f"cuda:{launch.index % torch.cuda.device_count() if own is None else own}"
