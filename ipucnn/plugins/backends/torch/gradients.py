"""Removes the loss scaling from gradients, and reads the figures of an update."""

from __future__ import annotations

from typing import List, Optional, Tuple

import torch
from torch import nn


def unscale(model: nn.Module, scaling: float, check: bool) -> Optional[torch.Tensor]:
    """Divide the gradients of a model by the loss scaling, in place.

    An overflow in half precision can leave the loss finite and a gradient not.

    Args:
        model: after its backward pass.
        scaling: the factor on the loss.
        check: look for values that are not finite.

    Returns:
        1 if a gradient is not finite and 0 otherwise, `(1,)` on the device; None without `check`.
    """
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    if not gradients:
        return None
    if not check:
        if scaling != 1.0:
            torch._foreach_mul_(gradients, 1.0 / scaling)
        return None
    place = gradients[0].device
    found = torch.zeros(1, dtype=torch.float32, device=place)
    inverse = torch.full((1,), 1.0 / scaling, dtype=torch.float32, device=place)
    try:
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, inverse)
    except (NotImplementedError, RuntimeError):  # torch 2.0 has it for CUDA only
        return _checked(gradients, scaling)
    return found


def _checked(gradients: List[torch.Tensor], scaling: float) -> torch.Tensor:
    norms = torch.stack(torch._foreach_norm(gradients))
    if scaling != 1.0:
        torch._foreach_mul_(gradients, 1.0 / scaling)
    return (~torch.isfinite(norms).all()).float().reshape(1)


def figures_of(value: torch.Tensor, overflow: Optional[torch.Tensor],
          hits: Optional[torch.Tensor]) -> Tuple[float, bool, int]:
    """Return the figures of an update, in one transfer: each would wait for the device."""
    zero = value.new_zeros(1, dtype=torch.float64)
    rows = (zero if row is None else row.reshape(1).to(value.device, torch.float64)
            for row in (value, overflow, hits))
    found = torch.cat(list(rows)).tolist()
    return found[0], bool(found[1]), int(found[2])
