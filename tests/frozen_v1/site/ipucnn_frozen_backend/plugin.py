"""The hooks: what this distribution offers. Imports no torch."""

from typing import List

import ipucnn


@ipucnn.hookimpl
def ipucnn_backends() -> List[ipucnn.BackendSpec]:
    """Return the backend."""
    return [ipucnn.BackendSpec(
        name="frozen-backend", summary="plain eager torch on the CPU, which also trains",
        target="ipucnn_frozen_backend.training_backend:FrozenBackendTrainingBackend", training=True,
        device="CPU", precisions=("32.32",), features=(), mixup=True, replicas=True,
        pipelining=False, options="ipucnn_frozen_backend.options:BackendOptions")]
