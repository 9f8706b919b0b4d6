"""Normalises images on the host or as part of the model."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Optional, Tuple

import torch
from torch import nn

from ipucnn.core.preprocessing import Preprocessing

if TYPE_CHECKING:
    from ipucnn.core.execution.plan import ExecutionPlan

_SCALE, _SHIFT = "_image_scale", "_image_shift"


def _constants(preprocessing: Preprocessing) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return scale and shift of normalisation, `(1, 3, 1, 1)`: x becomes x*scale - shift."""
    low, high = preprocessing.value_range
    mean, std = (torch.tensor(values, dtype=torch.float32)
                 for values in (preprocessing.mean, preprocessing.std))
    return (((high - low) / (255 * std)).view(1, 3, 1, 1), ((mean - low) / std).view(1, 3, 1, 1))


@lru_cache(maxsize=16)
def _constants_on(device: torch.device,
                  preprocessing: Preprocessing) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the constants on a device, where they stay: a copy would wait for the device."""
    scale, shift = _constants(preprocessing)
    return scale.to(device), shift.to(device)


def normalise(images: torch.Tensor, dtype: torch.dtype = torch.float32,
              preprocessing: Optional[Preprocessing] = None) -> torch.Tensor:
    """Return images normalised as a network expects them.

    Args:
        images: `(n, 3, height, width)`, uint8 or floating, 0 to 255, in the network's order of
            channels.
        dtype: of the result; the arithmetic is float32.
        preprocessing: of the network; ImageNet's mean and standard deviation when None.
    """
    scale, shift = _constants_on(images.device, preprocessing or Preprocessing())
    return (images.to(torch.float32) * scale - shift).to(dtype)


def fed(images: torch.Tensor, plan: ExecutionPlan) -> torch.Tensor:
    """Return uint8 images converted to the plan's pixel format for transfer to the device."""
    if plan.pixels == "normalised":
        return normalise(images, preprocessing=plan.preprocessing)
    return images if plan.pixels == "uint8" else images.float()


def normalise_on_device(model: nn.Module, dtype: Optional[torch.dtype] = None,
                        arithmetic: torch.dtype = torch.float32,
                        preprocessing: Optional[Preprocessing] = None) -> None:
    """Make the model accept images of 0 to 255, uint8 or floating, and normalise them itself.

    Call it when the model has its final precision. The constants are buffers that move with the
    model and are not saved.

    Args:
        model: takes `(n, 3, height, width)`.
        dtype: the model's compute type; that of its parameters when not given.
        arithmetic: type in which images are scaled. float16 saves memory on devices that have
            little; its constants are rounded.
        preprocessing: of the network; ImageNet's mean and standard deviation when None.
    """
    if dtype is None:
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    example = next(model.parameters(), None)
    device = torch.device("cpu") if example is None else example.device
    for name, constant in zip((_SCALE, _SHIFT), _constants(preprocessing or Preprocessing())):
        model.register_buffer(name, constant.to(device=device, dtype=arithmetic), persistent=False)
    model.register_forward_pre_hook(_Normalise(dtype, arithmetic))


class _Normalise:
    """The forward hook; it holds no tensor, so that a copied model uses its own constants."""

    def __init__(self, dtype: torch.dtype, arithmetic: torch.dtype) -> None:
        self.dtype = dtype
        self.arithmetic = arithmetic

    def __call__(self, model: nn.Module,
                 inputs: Tuple[torch.Tensor, ...]) -> Tuple[torch.Tensor, ...]:
        scale: torch.Tensor = getattr(model, _SCALE)
        shift: torch.Tensor = getattr(model, _SHIFT)
        # a later `.half()` on the model converts the constants too: the output follows them
        dtype = self.dtype if scale.dtype == self.arithmetic else scale.dtype
        return ((inputs[0].to(scale.dtype) * scale - shift).to(dtype), *inputs[1:])
