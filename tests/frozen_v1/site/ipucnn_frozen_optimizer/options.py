"""The options that the plugin declares. Imports no torch."""

from dataclasses import dataclass

import ipucnn
from ipucnn.plugin import UsageError


@dataclass(frozen=True)
class OptimizerOptions:
    """Options of the optimizer."""

    frozen_optimizer_beta: float = ipucnn.option(
        0.9, "Decay of the running mean of gradients.", minimum=0.0, maximum=1.0, basic=True)

    def __post_init__(self) -> None:
        # what a declaration cannot express of a value, or of several together
        if self.frozen_optimizer_beta == 1.0:
            raise UsageError("'--frozen-optimizer-beta 1' ignores all gradients", "use a value below 1")
