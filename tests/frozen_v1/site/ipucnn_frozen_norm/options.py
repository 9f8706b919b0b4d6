"""The options that the plugin declares. Imports no torch."""

from dataclasses import dataclass
from typing import Optional

import ipucnn


@dataclass(frozen=True)
class NormLayerOptions:
    """Options of the norm layer."""

    frozen_norm_eps: Optional[float] = ipucnn.option(
        None, "Added to the variance (default: the model's own).", exclusive_minimum=0.0,
        fixed="model")
