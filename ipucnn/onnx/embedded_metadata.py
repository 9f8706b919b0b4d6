"""Metadata embedded in a model file: preprocessing, class names and provenance."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Tuple

from ipucnn.data.constants import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    import onnx

_PREFIX = "ipucnn."


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(
        isinstance(number, float) for number in value)


_FORMS: Mapping[str, Callable[[Any], bool]] = {
    "model": lambda value: isinstance(value, str),
    "input_size": lambda value: type(value) is int and value > 0,
    "normalisation": lambda value: value in ("device", "host", "none"),
    "mean": _numbers,
    "std": _numbers,
    "class_names": lambda value: isinstance(value, list) and all(
        isinstance(name, str) for name in value),
    "provenance": lambda value: isinstance(value, dict),
}
"""The expected JSON type of each field; other values are ignored."""


@dataclass(frozen=True)
class Metadata:
    """The metadata of an exported file, each field as JSON under `ipucnn.<field>`.

    Attributes:
        model: the network's name.
        input_size: height and width in pixels; images are RGB, `(batch, 3, height, width)`.
        normalisation: `device` when the graph takes images of 0 to 255 and normalises them,
            `host` when its input is already normalised with `mean` and `std`, `none` when the
            graph was trained on images of 0 to 255.
        mean, std: of each channel, for images scaled to 0..1.
        class_names: of the outputs; empty when unknown.
        provenance: weights, precision and software versions.
    """

    model: str = ""
    input_size: int = 0
    normalisation: str = "host"
    mean: Tuple[float, ...] = IMAGENET_MEAN
    std: Tuple[float, ...] = IMAGENET_STD
    class_names: Tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def embed(self, model: onnx.ModelProto) -> None:
        """Write the metadata into a model, in place."""
        from onnx import helper

        properties = {entry.key: entry.value for entry in model.metadata_props}
        properties.update({_PREFIX + name: json.dumps(value) for name, value in vars(self).items()})
        helper.set_model_props(model, properties)

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Metadata:
        """Read the metadata of a model; use defaults for fields that a foreign file lacks."""
        values: Dict[str, Any] = {}
        for entry in model.metadata_props:
            name = entry.key[len(_PREFIX):]
            if entry.key.startswith(_PREFIX) and name in _FORMS:
                try:
                    value = json.loads(entry.value)
                except ValueError:
                    continue
                if _FORMS[name](value):
                    values[name] = tuple(value) if isinstance(value, list) else value
        return cls(**values)
