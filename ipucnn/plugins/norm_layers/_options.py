"""Options that several norm layers share. It is not a plugin; it imports no torch."""

from dataclasses import dataclass
from typing import Optional

from ipucnn.core.options.declaration import option


@dataclass(frozen=True)
class EpsilonOption:
    """The epsilon of a norm layer."""

    # None keeps what the model was designed with: EfficientNet's 1e-3 is not ResNet's 1e-5.
    norm_eps: Optional[float] = option(
        None, "Epsilon of the norms (default: the model's own).", exclusive_minimum=0.0,
        fixed="model")
