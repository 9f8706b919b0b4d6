"""The `coco` dataset."""

from __future__ import annotations

from typing import List

from ipucnn.core.hookspecs import hookimpl
from ipucnn.core.specs import DatasetSpec


@hookimpl
def ipucnn_datasets() -> List[DatasetSpec]:
    """Return the record of `coco`."""
    return []
