"""Converts ONNX graphs to the form that PopART accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional, Sequence

import popart

from ipucnn.plugins.backends.popart.placing import place

if TYPE_CHECKING:
    import onnx


def own_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Copy shared weights, so that each node reads its own, named for the node.

    The exporter names weights by numbers and lets those share one tensor that happen to be equal.
    The new names depend on the network only, so that other weights of it can be loaded, and no
    tensor is used on two IPUs.

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


def with_batch(proto: onnx.ModelProto, images: int) -> onnx.ModelProto:
    """Fix the number of images of a graph that takes any number.

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
    return simplified(proto)  # what was computed from the number is constant now


def in_half(proto: onnx.ModelProto) -> bytes:
    """Return a model with inputs, outputs, weights and arithmetic in float16.

    Args:
        proto: the model in float32; changed in place.
    """
    from onnx import TensorProto

    for node in proto.graph.node:  # the transformer changes only tensors, not other attributes
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    transformer = popart.GraphTransformer(proto.SerializeToString())
    transformer.convertFloatsToHalfs()
    result: bytes = transformer.getModelProto()
    return result


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
