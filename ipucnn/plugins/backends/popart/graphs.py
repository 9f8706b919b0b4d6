"""Converts ONNX graphs to the form that PopART accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Optional, Sequence, Set

import numpy
import popart

from ipucnn.onnx.graph_entries import replace_all
from ipucnn.plugins.backends.popart.placing import place

if TYPE_CHECKING:
    import onnx


def own_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Copy shared weights, so that each node has its own weights, named after the node.

    The exporter names weights by numbers, and uses one tensor for equal weights. The new names
    depend on the network only, so that other weights can be loaded, and no tensor is used on two
    IPUs.

    Args:
        proto: the model; changed in place.
    """
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    inputs = [entry for entry in proto.graph.input if entry.name not in weights]
    own = []
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            if name in weights:
                tensor = type(weights[name])()
                tensor.CopyFrom(weights[name])
                tensor.name = f"{node.output[0]}.{position}"
                node.input[position] = tensor.name
                own.append(tensor)
    for field, entries in ((proto.graph.initializer, own), (proto.graph.input, inputs)):
        del field[:]
        field.extend(entries)
    return proto


def with_raw_values(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Store the values of weights and constants as bytes, which PopART reads correctly.

    A file may also store them as a list of numbers of 32 bits, of which PopART takes the memory for
    that of the tensor: its values of 8 and 16 bits would be others.

    Source: PopART's `onnxutil::getConstData`.

    Args:
        proto: the model; changed in place.
    """
    from onnx import numpy_helper

    tensors = [*proto.graph.initializer, *(
        one.t for node in proto.graph.node for one in node.attribute if one.HasField("t"))]
    for tensor in tensors:
        if not tensor.HasField("raw_data"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    return proto


def with_batch(proto: onnx.ModelProto, images: int) -> onnx.ModelProto:
    """Set a fixed batch size in a graph with a dynamic one.

    Args:
        proto: the model; changed in place.
        images: per call.
    """
    from ipucnn.onnx.simplify import simplified

    weights = {tensor.name for tensor in proto.graph.initializer}
    for entry in (*proto.graph.input, *proto.graph.output):
        if entry.name not in weights:
            entry.type.tensor_type.shape.dim[0].dim_value = images
    del proto.graph.value_info[:]
    return simplified(proto)  # values that were computed from it are now constant


def in_half(proto: onnx.ModelProto) -> bytes:
    """Return a model with inputs, outputs, weights and arithmetic in float16.

    Args:
        proto: the model in float32; changed in place.
    """
    import onnx

    for node in proto.graph.node:  # the transformer changes only tensors, not other attributes
        if node.op_type == "Cast" or node.op_type in _RANDOM:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype") and attribute.i == onnx.TensorProto.FLOAT:
                    attribute.i = onnx.TensorProto.FLOAT16
        if node.op_type in _RANDOM and "dtype" not in {one.name for one in node.attribute}:
            # without it these are FLOAT, or have the type of an input that is FLOAT no longer
            node.attribute.append(onnx.helper.make_attribute("dtype", onnx.TensorProto.FLOAT16))
    transformer = popart.GraphTransformer(proto.SerializeToString())
    transformer.convertFloatsToHalfs()
    converted = onnx.load_from_string(transformer.getModelProto())
    return bytes(float_scalars(converted).SerializeToString())


_RANDOM = ("RandomUniform", "RandomUniformLike", "RandomNormal", "RandomNormalLike")

_SCALARS = {"Clip": (1, 2), "Pad": (2,)}
"""Operators of version 11 with inputs that PopART reads as numbers in single precision."""


def float_scalars(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Store bounds of Clip and values of Pad as separate constants in single precision.

    PopART reads them when it builds the program and does not support half precision for them; only
    the first input of such nodes is a tensor on the device. A zero value of Pad is removed.

    Args:
        proto: the model; changed in place.
    """
    from onnx import numpy_helper

    values = {one.name: one for one in proto.graph.initializer}
    values.update((node.output[0], one.t) for node in proto.graph.node
                  if node.op_type == "Constant" for one in node.attribute if one.name == "value")
    nodes: List[onnx.NodeProto] = []
    for node in proto.graph.node:
        for position in _SCALARS.get(node.op_type, ()):
            name = node.input[position] if position < len(node.input) else ""
            if name not in values:
                continue
            value = numpy_helper.to_array(values[name]).astype(numpy.float32).reshape(())
            if node.op_type == "Pad" and not value:
                node.input[position] = ""
            else:
                node.input[position] = f"{node.output[0]}.{position}/float"
                nodes.append(_constant(node.input[position], value))
        while node.input and not node.input[-1]:
            del node.input[-1]
        nodes.append(node)
    return _with_nodes(proto, nodes)


def _constant(name: str, value: numpy.ndarray) -> onnx.NodeProto:
    from onnx import helper, numpy_helper

    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value, name))


def _with_nodes(proto: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """Replace the nodes of a model, without constants and weights that nothing reads."""
    read = {name for node in nodes for name in node.input}
    read.update(output.name for output in proto.graph.output)
    graph = proto.graph
    gone = {one.name for one in graph.initializer} - read
    replace_all(graph.node, [node for node in nodes
                             if node.op_type != "Constant" or node.output[0] in read])
    replace_all(graph.initializer, [one for one in graph.initializer if one.name in read])
    replace_all(graph.input, [one for one in graph.input if one.name not in gone])
    return proto


def master_weights(proto: onnx.ModelProto, weights: Set[str]) -> onnx.ModelProto:
    """Insert a Cast to half precision between weights and nodes, for precision 16.32.

    The weights and with them gradients, accumulators and the optimizer's state are in single
    precision; the rest of the model is in half precision already.

    Args:
        proto: the model; changed in place.
        weights: names of the initialisers.
    """
    from onnx import TensorProto, helper

    nodes: List[onnx.NodeProto] = []
    for node in proto.graph.node:
        # named for the node's module, so that it is on the same pipeline stage
        within = node.name.rpartition("/")[0]
        for position, name in enumerate(node.input):
            if name in weights:
                node.input[position] = f"{node.output[0]}.{position}/half"
                nodes.append(helper.make_node(
                    "Cast", [name], [node.input[position]], to=TensorProto.FLOAT16,
                    name=f"{within}/Cast_{position}"))
        nodes.append(node)
    in_type(proto, weights, TensorProto.FLOAT)
    return _with_nodes(proto, nodes)


def in_type(proto: onnx.ModelProto, names: Set[str], kind: int) -> None:
    """Give initialisers a type.

    Args:
        proto: the model; changed in place.
        names: of the initialisers.
        kind: a number of `onnx.TensorProto.DataType`.
    """
    from onnx import helper, numpy_helper

    for tensor in proto.graph.initializer:
        if tensor.name in names and tensor.data_type != kind:
            array = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kind))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for entry in proto.graph.input:
        if entry.name in names:
            entry.type.tensor_type.elem_type = kind


def with_constants(model: bytes) -> bytes:
    """Return a model whose shapes and indices are constants; weights are variables here."""
    transformer = popart.GraphTransformer(model)
    transformer.convertAllFixedPointInitializersToConstants()
    result: bytes = transformer.getModelProto()
    return result


def placed(model: bytes, nodes: Sequence[onnx.NodeProto], stages: Optional[Sequence[int]],
           proportions: Sequence[float]) -> bytes:
    """Return a model whose nodes are assigned to IPUs; see `placing.place`."""
    builder = popart.Builder(model)
    place(builder, nodes, stages, proportions)
    result: bytes = builder.getModelProto()
    return result
