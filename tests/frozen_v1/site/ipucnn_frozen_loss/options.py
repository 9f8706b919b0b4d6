"""The options that the plugin declares. Imports no torch."""

from dataclasses import dataclass

import ipucnn


@dataclass(frozen=True)
class LossOptions:
    """Options of the loss."""

    frozen_loss_temperature: float = ipucnn.option(
        1.0, "Divisor of the logits.", exclusive_minimum=0.0)
