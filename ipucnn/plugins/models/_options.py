"""Options that several model families share. It is not a plugin; it imports no torch."""

from dataclasses import dataclass
from typing import Optional

from ipucnn.core.options.declaration import option


@dataclass(frozen=True)
class ResidualOptions:
    """Options of residual networks (He et al., "Deep Residual Learning", 2015, section 4.1)."""

    shortcut_type: Optional[str] = option(
        None, "Shortcuts of residual blocks: A pads with zeros if shapes differ, B projects if "
        "shapes differ, C always projects (default: that of the network).", choices=("A", "B", "C"),
        fixed="model")
