"""Converts a graph to half precision: rounds weights, or converts everything to float16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Iterable, Iterator, List

import numpy

if TYPE_CHECKING:
    import onnx


def in_bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Round float32 weights to values of bfloat16, to nearest even, stored as float32.

    Args:
        model: modified in place.
    """
    from onnx import TensorProto, numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        value = numpy_helper.to_array(tensor)
        bits = value.view(numpy.uint32)
        # bfloat16 is the upper half of float32; half of its last digit carries into it
        half = ((bits + (0x7FFF + (bits >> 16 & 1))) & 0xFFFF0000).astype(numpy.uint32)
        tensor.CopyFrom(numpy_helper.from_array(
            numpy.where(numpy.isfinite(value), half.view(numpy.float32), value), tensor.name))
    return model


def in_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a graph to float16 weights and computation.

    A float input and the logits are cast inside the graph, so that the model's interface is
    unchanged. Weights beyond float16's range are clipped to it.

    Args:
        model: a graph of float32, modified in place.
    """
    from onnx import TensorProto, numpy_helper

    largest = numpy.finfo(numpy.float16).max
    for tensor in _floats(model):
        value = numpy_helper.to_array(tensor).clip(-largest, largest)
        tensor.CopyFrom(numpy_helper.from_array(
            numpy.asarray(value, dtype=numpy.float16), tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if (node.op_type, attribute.name, attribute.i) == ("Cast", "to", TensorProto.FLOAT):
                attribute.i = TensorProto.FLOAT16
    del model.graph.value_info[:]
    nodes = list(model.graph.node)
    for entry in _float_values(model.graph.input):
        inner = f"{entry.name}_float16"
        _rename(entry.name, inner, [node.input for node in nodes])
        nodes.insert(0, _cast(entry.name, inner, entry.name, TensorProto.FLOAT16))
    for entry in _float_values(model.graph.output):
        inner = f"{entry.name}_float16"
        _rename(entry.name, inner, [names for node in nodes for names in (node.input, node.output)])
        nodes.append(_cast(inner, entry.name, entry.name, TensorProto.FLOAT))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _float_values(values: Iterable[Any]) -> List[Any]:
    """Return the inputs or outputs of a graph that are float32."""
    from onnx import TensorProto

    return [entry for entry in values
            if entry.type.tensor_type.elem_type == TensorProto.FLOAT]


def _rename(old: str, new: str, places: Iterable[Any]) -> None:
    """Rename a value in lists of names."""
    for names in places:
        for place, name in enumerate(names):
            if name == old:
                names[place] = new


def _cast(source: str, result: str, value: str, to: int) -> Any:
    """Return the node that casts an input or output of the graph."""
    import onnx

    return onnx.helper.make_node("Cast", [source], [result], name=f"cast_{value}", to=to)


def _floats(model: onnx.ModelProto) -> Iterator[Any]:
    from onnx import TensorProto

    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            yield tensor
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                yield attribute.t
