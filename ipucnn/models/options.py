"""The options of a model that is built by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Tuple

from ipucnn.core.options.composition import CommandOptions, part
from ipucnn.core.options.parts import NetworkPart


@dataclass(frozen=True)
class ModelOptions(CommandOptions):
    """The options of a model that is built by name."""

    network: NetworkPart = part(NetworkPart)

    kinds: ClassVar[Tuple[str, ...]] = ("model", "norm-layer")
