"""The fastest form of torch's own optimizers that this torch has on this device."""

from __future__ import annotations

from typing import Any, Dict, List

import torch  # noqa: TID253

_FUSED_ON_CPU = {"SGD", "Adam", "AdamW"}


def fused_if_possible(kind: Any, groups: List[Dict[str, Any]],
                      **values: Any) -> torch.optim.Optimizer:
    """Return ``kind(groups, **values)``, fused where torch can: one pass over each tensor.

    Fused kernels came to the CPU with torch 2.4, and need floating-point tensors of one device.
    """
    tensors = [tensor for group in groups for tensor in group["params"]]
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if tensors and version >= (2, 4) and kind.__name__ in _FUSED_ON_CPU \
            and all(tensor.is_floating_point() and tensor.device.type in ("cpu", "cuda")
                    for tensor in tensors):
        values["fused"] = True
    optimizer: torch.optim.Optimizer = kind(groups, **values)
    return optimizer
