"""The hooks: what this distribution offers. Imports no torch."""

from typing import List

import ipucnn


@ipucnn.hookimpl
def ipucnn_losses() -> List[ipucnn.LossSpec]:
    """Return the loss."""
    return [ipucnn.LossSpec(
        name="frozen-loss", summary="cross-entropy at a temperature",
        target="ipucnn_frozen_loss.loss:FrozenLossLoss", formula="mean(-log softmax(z / T)[y])",
        options="ipucnn_frozen_loss.options:LossOptions")]
