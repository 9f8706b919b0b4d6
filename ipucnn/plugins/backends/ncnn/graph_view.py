"""An ONNX graph as the translation reads it: constants as arrays, and all shapes known."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, DefaultDict, Dict, List, NoReturn, Optional, Tuple

from ipucnn.core.errors import UnsupportedNetworkError
from ipucnn.onnx.simplify import simplified, static_shapes
from ipucnn.onnx.target import opset_of

if TYPE_CHECKING:
    import numpy
    import onnx

    Array = numpy.ndarray[Any, Any]

ANY_BATCH = 13
"""Number of images with which the shapes of a graph for any number are computed; no other dimension
usually has this size, so that operators that do not keep images apart are found."""


@dataclass(frozen=True, eq=False)
class Node:
    """An operator; `inputs` has an empty name for each optional input that is left out."""

    kind: str
    name: str
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    attributes: Dict[str, Any]

    @property
    def output(self) -> str:
        """The name of its first output."""
        return self.outputs[0]

    def input(self, place: int) -> str:
        """Return the name of an input, or an empty name for one that is left out."""
        return self.inputs[place] if place < len(self.inputs) else ""

    def refused(self, why: str) -> NoReturn:
        """Raise an error for an operator that ncnn cannot compute exactly.

        Raises:
            UnsupportedNetworkError: always.
        """
        raise refusal(f"operator {self.kind} {self.name!r} {why}")


def refusal(why: str) -> UnsupportedNetworkError:
    """Return the error for a network that cannot be translated."""
    return UnsupportedNetworkError(f"ncnn refuses the network: {why}",
                                   "use another backend, network or norm layer", exit_code=1)


@dataclass
class GraphView:
    """A simplified graph with known shapes.

    Attributes:
        batch: the number of images in all shapes.
        opset: version of the operator set.
        source: name of the image input.
        result: name of the logits.
        nodes: in order of execution.
        constants: weights, and values of the constants.
        shapes: of all tensors that depend on the images; they begin with the batch.
        readers: operators that read a tensor.
    """

    batch: int
    opset: int
    source: str
    result: str
    nodes: List[Node] = field(default_factory=list)
    constants: Dict[str, Array] = field(default_factory=dict)
    shapes: Dict[str, Tuple[int, ...]] = field(default_factory=dict)
    readers: DefaultDict[str, List[Node]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, model: onnx.ModelProto, source: str, batch: Optional[int]) -> GraphView:
        """Return the view of a model.

        Args:
            model: changed.
            source: name of the image input.
            batch: images per call; None for any number.
        """
        import numpy
        from onnx import helper, numpy_helper

        view = cls(batch or ANY_BATCH, opset_of(model), source, model.graph.output[0].name)
        for entry in (*model.graph.input, *model.graph.output):
            if entry.name in (view.source, view.result):
                entry.type.tensor_type.shape.dim[0].dim_value = view.batch
        del model.graph.value_info[:]  # they hold symbols for the batch
        graph = simplified(model).graph
        for tensor in graph.initializer:
            view.constants[tensor.name] = numpy_helper.to_array(tensor)
        for proto in graph.node:
            attributes = {entry.name: helper.get_attribute_value(entry)
                          for entry in proto.attribute}
            if proto.op_type == "Constant":
                value, = attributes.values()
                view.constants[proto.output[0]] = numpy_helper.to_array(value) \
                    if "value" in attributes else numpy.asarray(value)
                continue
            kind = f"{proto.domain}.{proto.op_type}" if proto.domain not in ("", "ai.onnx") \
                else proto.op_type
            node = Node(kind, proto.name or proto.output[0], tuple(proto.input),
                        tuple(proto.output), attributes)
            view.nodes.append(node)
            for name in set(node.inputs):
                view.readers[name].append(node)
        view.shapes = {name: tuple(shape) for name, shape in static_shapes(model).items()}
        return view

    def constant(self, node: Node, place: int) -> Array:
        """Return a constant input of an operator.

        Raises:
            UnsupportedNetworkError: it depends on the images.
        """
        if node.input(place) not in self.constants:
            node.refused(f"computes its input {place} from the images")
        return self.constants[node.input(place)]

    def only_reader(self, name: str) -> Optional[Node]:
        """Return the only operator that reads a tensor, or None."""
        readers = self.readers[name]
        return readers[0] if len(readers) == 1 and name != self.result \
            and readers[0].inputs.count(name) == 1 else None

    def setting(self, node: Node, name: str, place: int) -> Optional[List[Any]]:
        """Return a setting that is an attribute or, in newer operator sets, a constant input."""
        if name in node.attributes:
            value = node.attributes[name]
            return list(value) if isinstance(value, (list, tuple)) else [value]
        if not node.input(place):
            return None
        found: List[Any] = self.constant(node, place).reshape(-1).tolist()
        return found
