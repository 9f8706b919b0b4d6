"""Metadata embedded in a model file: the model card, and where images are normalised."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Tuple

from ipucnn.core.documents import parsed_json
from ipucnn.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, LARGEST_INPUT, Preprocessing
from ipucnn.models.card import ModelCard
from ipucnn.models.foreign_names import class_names_in, naming_fields

if TYPE_CHECKING:
    import onnx

_PREFIX = "ipucnn."
_CARD = "card"


def _numbers(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(
        isinstance(number, float) for number in value)


_FORMS: Mapping[str, Callable[[Any], bool]] = {
    "model": lambda value: isinstance(value, str),
    "input_size": lambda value: type(value) is int and 0 < value <= LARGEST_INPUT,
    "normalisation": lambda value: value in ("device", "host", "none"),
    "mean": _numbers,
    "std": _numbers,
    "class_names": lambda value: isinstance(value, list) and all(
        isinstance(name, str) for name in value),
    "provenance": lambda value: isinstance(value, dict),
    _CARD: lambda value: isinstance(value, dict),
}
"""The expected JSON type of each field; other values are ignored."""


@dataclass(frozen=True)
class Metadata:
    """The metadata of a model file.

    Attributes:
        card: of the model; None for files of other programs.
        normalisation: `device` if the graph takes images of 0 to 255 and normalises them, `host` if
            its input must be normalised, `none` if the graph was trained on images of 0 to 255;
            empty if unknown.
        class_names: names of the classes, if the file contains them; also for files of other
            programs.
    """

    card: Optional[ModelCard] = None
    normalisation: str = ""
    class_names: Tuple[str, ...] = ()

    def embed(self, model: onnx.ModelProto) -> None:
        """Write the metadata into a model, in place, each field as JSON under `ipucnn.<field>`.

        In addition to the card, the fields of the first version are written for earlier releases.
        """
        from onnx import helper

        assert self.card is not None
        card, images = self.card, self.card.preprocessing
        values = {
            _CARD: card.as_plain(), "normalisation": self.normalisation, "model": card.model,
            "input_size": images.input_size, "mean": images.mean, "std": images.std,
            "class_names": card.class_names, "provenance": card.provenance}
        properties = {entry.key: entry.value for entry in model.metadata_props}
        properties.update({_PREFIX + name: json.dumps(value) for name, value in values.items()})
        helper.set_model_props(model, properties)

    @classmethod
    def of(cls, properties: Mapping[str, str], num_outputs: int) -> Metadata:
        """Read the metadata of a model.

        Args:
            properties: of the model.
            num_outputs: number of its outputs.

        Raises:
            PluginError: the card is damaged.
        """
        values = _own_fields(properties)
        names = values.get("class_names") or class_names_in(
            naming_fields(properties), num_outputs)
        card: Optional[ModelCard] = None
        if _CARD in values:
            card = ModelCard.from_plain(values[_CARD])
        elif "input_size" in values:  # written before cards existed
            preprocessing = Preprocessing(
                input_size=values["input_size"], mean=values.get("mean", IMAGENET_MEAN),
                std=values.get("std", IMAGENET_STD))
            card = ModelCard(
                model=values.get("model", ""), num_outputs=num_outputs, class_names=names,
                preprocessing=preprocessing, provenance=values.get("provenance", {}))
        return cls(card, values.get("normalisation", "host" if card else ""), tuple(names))


def _own_fields(properties: Mapping[str, str]) -> Dict[str, Any]:
    values: Dict[str, Any] = {}
    for key, text in properties.items():
        name = key[len(_PREFIX):]
        if key.startswith(_PREFIX) and name in _FORMS:
            try:
                value = parsed_json(text)
            except ValueError:
                continue
            if _FORMS[name](value):
                values[name] = tuple(value) if isinstance(value, list) else value
    return values
