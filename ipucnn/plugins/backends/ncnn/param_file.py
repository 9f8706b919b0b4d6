"""Writes networks in ncnn's format: a text of layers (`.param`) and their weights (`.bin`).

Source: ncnn's developer guide, `param-and-model-file-structure` and `operation-param-weight-table`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, List, Sequence, Tuple, Union

if TYPE_CHECKING:
    import numpy

    Array = numpy.ndarray[Any, Any]

Parameter = Union[int, float, Sequence[float]]

INPUT, OUTPUT = "images", "logits"
"""Names of the blobs of a network's input and output."""

_MAGIC = "7767517"
_RAW = b"\0\0\0\0"
"""The tag of weights that are stored as float32."""

_ARRAYS = -23300
"""Added to the number of a parameter whose value is an array."""


@dataclass
class Layer:
    """A layer of ncnn.

    Attributes:
        kind: its type.
        inputs: names of the blobs that it reads.
        output: name of the blob that it computes.
        parameters: by number.
        weights: the arrays of the layer, and whether a tag precedes each of them.
    """

    kind: str
    inputs: List[str]
    output: str
    parameters: Dict[int, Parameter] = field(default_factory=dict)
    weights: Sequence[Tuple[Array, bool]] = ()


def text_of(layers: Sequence[Layer]) -> str:
    """Return the text of the `.param` file.

    A blob has one reader in ncnn; a layer `Split` copies the reference for several.

    Args:
        layers: in order of execution; the first one is the input.
    """
    readers = Counter(name for layer in layers for name in layer.inputs)
    readers[OUTPUT] += 1
    lines: List[str] = []
    blobs = 0
    read: Counter[str] = Counter()
    for layer in layers:
        inputs = []
        for name in layer.inputs:
            inputs.append(name if readers[name] == 1 else f"{name}_{read[name]}")
            read[name] += 1
        output = layer.output
        copies: List[str] = []
        if readers[output] > 1:
            copies = [f"{output}_{number}" for number in range(readers[output])]
            if output == OUTPUT:  # the last reader is the caller
                copies[-1], output = output, f"{output}_all"
        lines.append(_line(layer.kind, f"l{len(lines)}", inputs, [output], layer.parameters))
        if copies:
            lines.append(_line("Split", f"l{len(lines)}", [output], copies, {}))
        blobs += 1 + len(copies)
    return "\n".join([_MAGIC, f"{len(lines)} {blobs}", *lines, ""])


def _line(kind: str, name: str, inputs: Sequence[str], outputs: Sequence[str],
          parameters: Dict[int, Parameter]) -> str:
    values = [f"{number}={_written(value)}" if isinstance(value, (int, float))
              else f"{_ARRAYS - number}={','.join([str(len(value)), *map(_written, value)])}"
              for number, value in sorted(parameters.items())]
    return " ".join([kind, name, str(len(inputs)), str(len(outputs)), *inputs, *outputs, *values])


def _written(value: float) -> str:
    """Return a number as ncnn parses it: at most 15 characters, of which 9 are digits."""
    return str(value) if isinstance(value, int) else f"{float(value):.8e}"


def write_weights(layers: Sequence[Layer], file: BinaryIO) -> int:
    """Write the `.bin` file, and return its size in bytes."""
    size = 0
    for layer in layers:
        for array, tagged in layer.weights:
            content = array.astype("<f4").tobytes()
            size += file.write(_RAW + content if tagged else content)
    return size
