"""The options that the plugin declares. Imports no torch."""

from dataclasses import dataclass

import ipucnn


@dataclass(frozen=True)
class ModelOptions:
    """Options of the model."""

    # 'fixed': a checkpoint of one width cannot continue with another
    frozen_model_width: int = ipucnn.option(
        16, "Channels after the first convolution.", minimum=1, fixed="model")
