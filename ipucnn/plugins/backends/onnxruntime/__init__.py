"""The `onnxruntime` backend."""

from __future__ import annotations

from typing import List

from ipucnn.core.hookspecs import hookimpl
from ipucnn.core.specs import BackendSpec


@hookimpl
def ipucnn_backends() -> List[BackendSpec]:
    """Return the record of the `onnxruntime` backend."""
    return []
