"""Class names in the files of other programs: in their fields, and in the text of a property."""

from __future__ import annotations

import ast
import re
from typing import Any, Iterator, List, Mapping, Optional, Tuple

from ipucnn.core.documents import parsed_json

_NAMES = ("names", "classnames", "classes", "labels", "labelnames", "classlabels", "categories",
          "id2label", "idtolabel", "idx2class", "idxtoclass", "indextoclass")
_NUMBERS = ("label2id", "labeltoid", "class2idx", "classtoidx", "classtoindex")
"""Fields in which other programs write class names, and the numbers of classes by name; without
case, '_' and '-'."""

_PLACEHOLDER = re.compile(r"LABEL_\d+")
_LONGEST = 1 << 22  # characters of a list of names
_TEXT = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_LITERAL = re.compile(r"[\d\s\[\](){},:]*")

Field = Tuple[str, Any]


def naming_fields(content: Mapping[Any, Any]) -> List[Field]:
    """Return the fields of a file, and of the mappings in it, that may contain class names."""
    inner = [value for value in content.values() if isinstance(value, Mapping)]
    return [(key, value) for fields in (content, *inner) for key, value in fields.items()
            if isinstance(key, str) and _form(key) in (*_NAMES, *_NUMBERS)]


def class_names_in(fields: List[Field], num_outputs: Optional[int] = None) -> Tuple[str, ...]:
    """Return the class names in fields of another program; empty if it has none for the outputs.

    They are also empty if two fields have different ones.

    Args:
        fields: names in a list, names by number, or numbers by name, or one of these as text.
            Placeholders (`LABEL_0`) are no names.
        num_outputs: number of outputs of the model; None if it is not known.
    """
    found = set(_all_names(fields, num_outputs))
    return found.pop() if len(found) == 1 else ()


def _all_names(fields: List[Field], num_outputs: Optional[int]) -> Iterator[Tuple[str, ...]]:
    count = 2 if num_outputs == 1 else num_outputs
    for key, value in fields:
        names = _listed(key, _parsed(value) if isinstance(value, str) else value)
        # one name is that of a file or data set; a list with repetitions, the labels of images
        if len(names) > 1 and (len(set(names)) if count is None else count) == len(names):
            yield names


def _listed(key: str, value: Any) -> Tuple[str, ...]:
    """Return the names in a field in the order of the outputs; empty if it is no list of names."""
    if isinstance(value, Mapping):
        pairs = value.items() if _form(key) in _NUMBERS else (
            (name, number) for number, name in value.items())
        numbered = {str(number): name for name, number in pairs}
        value = [numbered.get(str(number)) for number in range(len(value))]
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value) \
            or all(_PLACEHOLDER.fullmatch(name) for name in value):
        return ()
    return tuple(value)


def _form(key: str) -> str:
    return re.sub(r"[_-]", "", key.rpartition(".")[2]).lower()  # 'model.class_names'


def _parsed(text: str) -> Any:
    """Return the value of a text: JSON, a literal of Python, or a list of names.

    Names are separated by line ends, or by commas in a text of one line.
    """
    for read in (parsed_json, _literal):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    lines = text.strip().splitlines()
    return [name.strip() for name in (lines if len(lines) > 1 else text.split(","))]


def _literal(text: str) -> Any:
    """Return the list or mapping of strings in a Python literal.

    Raises:
        ValueError: it is something else; a long expression could crash Python's parser.
    """
    if len(text) > _LONGEST or not _LITERAL.fullmatch(_TEXT.sub("", text)):
        raise ValueError("it is no plain list of names")
    return ast.literal_eval(text.strip())
