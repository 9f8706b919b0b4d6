"""Determines whether the samples of a micro-batch influence each other in a model."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def depends_on_batch(model: nn.Module) -> bool:
    """Return whether a sample's output depends on the others of its micro-batch.

    This holds for batch norm in training mode or without running statistics, and for modules with
    a true attribute `batch_dependent`.
    """
    return any((isinstance(m, _BatchNorm) and (m.training or m.running_mean is None))
               or getattr(m, "batch_dependent", False) for m in model.modules())
