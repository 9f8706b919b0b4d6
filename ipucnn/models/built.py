"""A built model and the source of its weights; this module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Tuple

from ipucnn.core.names import listed
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.records import ModelSpec
from ipucnn.models.card import ModelCard


@dataclass(frozen=True)
class WeightsReport:
    """The result of `load_weights`.

    Attributes:
        source: `random`, the URL or the file.
        tag: of the published weights.
        path: the file they were read from.
        sha256: of that file.
        licence: of the published weights.
        loaded: number of entries that were loaded.
        kept_random: names of the model's entries that were not loaded.
        dropped: names of entries of the file that the model does not have.
        new_head: whether the model's outputs differ from the file's and some have random weights.
    """

    source: str
    tag: str = ""
    path: str = ""
    sha256: str = ""
    licence: str = ""
    loaded: int = 0
    kept_random: Tuple[str, ...] = ()
    dropped: Tuple[str, ...] = ()
    new_head: bool = False

    def summary(self) -> str:
        """Return a one-line summary."""
        if not self.path:
            return "random weights"
        parts = [f"{self.loaded} entries from {self.source} (sha256 {self.sha256[:8]})"]
        if self.kept_random:
            parts.append("random: " + listed(self.kept_random, 3))
        if self.dropped:
            parts.append("dropped: " + listed(self.dropped, 3))
        return "; ".join(parts)


@dataclass(frozen=True)
class BuiltModel:
    """A model with its metadata.

    Attributes:
        module: a `torch.nn.Module` that maps normalised images `(n, 3, input_size, input_size)`
            to outputs `(n, num_outputs)`; `card` describes their meaning. For an ONNX file, an
            `ipucnn.onnx.network.OnnxNetwork`.
        spec: its record.
        weights: the source of its weights.
        card: its description.
    """

    module: Any
    spec: ModelSpec
    weights: WeightsReport
    card: ModelCard

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of its images."""
        return self.card.preprocessing

    @property
    def input_size(self) -> int:
        """Height and width of its images in pixels."""
        return self.card.preprocessing.input_size

    @property
    def num_outputs(self) -> int:
        """Number of values per image."""
        return self.card.num_outputs

    def with_card(self, **changes: Any) -> BuiltModel:
        """Return the model with other values in its card."""
        return replace(self, card=replace(self.card, **changes))
