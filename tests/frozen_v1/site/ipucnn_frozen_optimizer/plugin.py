"""The hooks: what this distribution offers. Imports no torch."""

from typing import List

import ipucnn


@ipucnn.hookimpl
def ipucnn_optimizers() -> List[ipucnn.OptimizerSpec]:
    """Return the optimizer."""
    return [ipucnn.OptimizerSpec(
        name="frozen-optimizer", summary="steps against the sign of a running mean of gradients",
        target="ipucnn_frozen_optimizer.optimizer:build_optimizer", lr=0.001, lr_growth="root",
        options="ipucnn_frozen_optimizer.options:OptimizerOptions")]
