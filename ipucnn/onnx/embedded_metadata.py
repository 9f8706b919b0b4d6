"""Metadata embedded in a model file: the model card, and where images are normalised."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Tuple

from ipucnn.core.files import parsed_json
from ipucnn.core.preprocessing import IMAGENET_MEAN, IMAGENET_STD, LARGEST_INPUT, Preprocessing
from ipucnn.models.card import ModelCard

if TYPE_CHECKING:
    import onnx

_PREFIX = "ipucnn."
_CARD = "card"
_LONGEST = 1 << 22  # characters of a list of names
_TEXT = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_LITERAL = re.compile(r"[\d\s\[\](){},:]*")
_NAMES = ("names", "class_names", "classes", "labels", "label_names", "id2label")
_NUMBERS = ("label2id", "class_to_idx")
"""Properties under which other exporters write class names, and the numbers of classes by name."""

_PLACEHOLDER = re.compile(r"LABEL_\d+")


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
        names = values.get("class_names") or _foreign_names(properties, num_outputs)
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


def _foreign_names(properties: Mapping[str, str], num_outputs: int) -> Tuple[str, ...]:
    """Return the class names in the format of other programs; empty if there are different ones."""
    found = {names for key, text in properties.items()
             for names in [names_in(key.rpartition(".")[2], _value(text), num_outputs)] if names}
    return found.pop() if len(found) == 1 else ()


def _value(text: str) -> Any:
    try:
        return _literal(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return [name.strip() for name in text.replace("\n", ",").split(",")]


def names_in(key: str, value: Any, num_outputs: int) -> Tuple[str, ...]:
    """Return the class names in a field of another program; empty if it has none for the outputs.

    Args:
        key: the name of the field.
        value: names in a list, names by number, or numbers by name. Placeholders (`LABEL_0`) are
            no names.
        num_outputs: number of outputs of the model.
    """
    if key.lower() not in (*_NAMES, *_NUMBERS):
        return ()
    count = 2 if num_outputs == 1 else num_outputs
    if isinstance(value, dict):
        pairs = [(name, number) for number, name in value.items()]
        numbered = {str(number): name for name, number in (
            value.items() if key.lower() in _NUMBERS else pairs)}
        value = [numbered.get(str(number)) for number in range(len(value))]
    if not isinstance(value, (list, tuple)) or len(value) != count \
            or not all(isinstance(name, str) for name in value) \
            or all(_PLACEHOLDER.fullmatch(name) for name in value):
        return ()
    return tuple(value)


def _literal(text: str) -> Any:
    """Return the list or mapping of strings in a Python literal.

    Raises:
        ValueError: it is something else; a long expression could crash Python's parser.
    """
    if len(text) > _LONGEST or not _LITERAL.fullmatch(_TEXT.sub("", text)):
        raise ValueError("it is no plain list of names")
    return ast.literal_eval(text.strip())
