"""Samples of a micro-batch that influence each other: in which models, and how many they need."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ipucnn.core.errors import BatchTooSmallError


def depends_on_batch(model: nn.Module) -> bool:
    """Return whether a sample's output depends on the others of its micro-batch.

    This holds for batch norm in training mode or without running statistics, and for modules with
    a true attribute `batch_dependent`.
    """
    return any((isinstance(m, _BatchNorm) and (m.training or m.running_mean is None))
               or getattr(m, "batch_dependent", False) for m in model.modules())


@contextmanager
def norm_errors(micro_batch: int) -> Iterator[None]:
    """Report a norm layer that has a single value per channel, and so no variance.

    Args:
        micro_batch: samples that are computed at once.

    Raises:
        BatchTooSmallError: a norm layer refused them.
    """
    try:
        yield
    except ValueError as error:
        found = re.search(r"more than 1 (?:value|spatial element).*?torch\.Size\(\[([\d, ]+)\]\)",
                          str(error))
        if found is None:
            raise
        *_, height, width = found.group(1).split(", ")
        raise BatchTooSmallError(
            f"a norm layer sees {height}x{width} pixels of {micro_batch} image"
            f"{'s' if micro_batch > 1 else ''}, which is a single value per channel and has no "
            "variance", "use '--batch-size 2' or more, a larger '--input-size', or '--normlayer "
            "group'") from error
