"""The translation of an ONNX graph to layers of ncnn, which compute one image at a time."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Set, Tuple

import numpy

from ipucnn.plugins.backends.ncnn.graph_view import GraphView, Node, refusal
from ipucnn.plugins.backends.ncnn.param_file import INPUT, OUTPUT, Layer, Parameter

if TYPE_CHECKING:
    Array = numpy.ndarray[Any, Any]

Shape = Tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """A tensor of one image.

    Attributes:
        blob: where ncnn stores it.
        shape: in ONNX, without the batch.
        stored: as ncnn stores the same elements in the same order. Pooling over a whole image, for
            example, stores `(channels, 1, 1)` as `(channels,)`.
        margins: zeros around it that are not stored: above, left, below, right.
    """

    blob: str
    shape: Shape
    stored: Shape
    margins: Tuple[int, int, int, int] = (0, 0, 0, 0)


class Translation:
    """The layers of a network, to which translators of operators add theirs.

    Attributes:
        view: the graph.
        layers: the layers so far.
        done: operators that are a part of the layer of an earlier one.
    """

    def __init__(self, view: GraphView) -> None:
        self.view = view
        shape = view.shapes[view.source][1:]
        self.layers = [Layer("Input", [], INPUT)]
        self.done: Set[Node] = set()
        self._values: Dict[str, Value] = {view.source: Value(INPUT, shape, shape)}

    def value(self, node: Node, place: int = 0) -> Value:
        """Return the tensor that is an input of an operator.

        Raises:
            UnsupportedNetworkError: it is a constant.
        """
        name = node.input(place)
        if name not in self._values:
            node.refused(f"has a constant input {place}")
        return self._values[name]

    def depends(self, name: str) -> bool:
        """Return whether a tensor depends on the image."""
        return name in self._values

    def weights(self, node: Node, place: int) -> Array:
        """Return weights of an operator.

        Raises:
            UnsupportedNetworkError: they depend on the images, or are not float32.
        """
        array = self.view.constant(node, place)
        if array.dtype != numpy.float32:
            node.refused(f"has weights of type {array.dtype}, and ncnn computes in float32")
        return array

    def shape(self, node: Node, name: str) -> Shape:
        """Return the shape of an operator's output, without the batch.

        Raises:
            UnsupportedNetworkError: it is not known, or does not begin with the batch.
        """
        shape = self.view.shapes.get(name)
        if shape is None:
            node.refused("has an output of unknown shape")
        if shape[:1] != (self.view.batch,):
            node.refused("does not keep the images of a batch apart")
        return shape[1:]

    def per_image(self, node: Node, array: Array, rank: int) -> Array:
        """Return a constant without the dimension of the batch.

        Args:
            node: the operator that reads it, for messages.
            array: the constant.
            rank: number of dimensions of the other operand, without the batch.

        Raises:
            UnsupportedNetworkError: it differs between the images of a batch.
        """
        if array.ndim <= rank:
            return array
        same = array.shape[0] == 1 or bool((array == array[:1]).all())
        if array.ndim > rank + 1 or not same:
            node.refused("has a constant for each image of a batch")
        found: Array = array[0]
        return found

    def put(self, node: Node, name: str, value: Value) -> None:
        """Set the tensor that an operator computes.

        Raises:
            UnsupportedNetworkError: its shape is not that of ONNX.
        """
        if self.shape(node, name) != value.shape:
            node.refused(f"has an output of shape {self.shape(node, name)} in ONNX, and "
                         f"{value.shape} in ncnn")
        self._values[name] = value

    def pad_later(self, name: str, value: Value) -> None:
        """Set a tensor with margins, which its only reader adds."""
        self._values[name] = value

    def added(self, kind: str, inputs: Sequence[Value], shape: Shape,
              parameters: Optional[Mapping[int, Parameter]] = None,
              weights: Sequence[Tuple[Array, bool]] = ()) -> Value:
        """Add a layer, and return its output, which is stored in the given shape."""
        blob = f"b{len(self.layers)}"
        self.layers.append(Layer(kind, [value.blob for value in inputs], blob,
                                 dict(parameters or {}), weights))
        return Value(blob, shape, shape)

    def stored_as(self, node: Node, value: Value, stored: Shape) -> Value:
        """Return a tensor that ncnn stores in the given shape, after a layer `Reshape` if needed.

        Raises:
            UnsupportedNetworkError: it has more than four dimensions, or none.
        """
        if value.stored == stored:
            return value
        if not 1 <= len(stored) <= 4 or prod(stored) != prod(value.stored):
            node.refused(f"has an operand of shape {value.shape}")
        places = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 11, 1, 0)}[len(stored)]
        made = self.added("Reshape", [value], stored, dict(zip(places, stored)))
        return Value(made.blob, value.shape, stored)

    def constant_value(self, array: Array) -> Value:
        """Add a constant of one to four dimensions."""
        places = {1: (0,), 2: (1, 0), 3: (2, 1, 0), 4: (2, 11, 1, 0)}[array.ndim]
        return self.added("MemoryData", [], array.shape, dict(zip(places, array.shape)),
                          [(array, False)])

    def named(self) -> List[Layer]:
        """Return the layers; the blob with the logits gets its name.

        Raises:
            UnsupportedNetworkError: no layer computes them.
        """
        value = self._values.get(self.view.result)
        if value is None or value.blob == INPUT:
            raise refusal("no operator computes its logits from the images")
        for layer in self.layers:
            layer.inputs = [OUTPUT if name == value.blob else name for name in layer.inputs]
            layer.output = OUTPUT if layer.output == value.blob else layer.output
        return self.layers
