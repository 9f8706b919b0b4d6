"""The ResNets for images of 32 pixels."""

from __future__ import annotations

from typing import List

from ipucnn.core.hookspecs import hookimpl
from ipucnn.core.specs import ModelSpec


@hookimpl
def ipucnn_models() -> List[ModelSpec]:
    """Return the records of the family."""
    return []
