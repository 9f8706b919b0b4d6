"""Converts a graph to half precision: rounds weights, or converts everything to float16."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, List, Sequence, Set, Tuple

import numpy

from ipucnn.onnx.graph_entries import replace_all
from ipucnn.onnx.simplify import inferred
from ipucnn.onnx.target import bodies_of, captured, defined, subgraphs

if TYPE_CHECKING:
    import onnx

_SINGLE_INPUTS: Dict[str, Sequence[int]] = {
    "DequantizeLinear": (1,), "DynamicQuantizeLinear": (0,), "QuantizeLinear": (0, 1),
    "Resize": (1, 2), "Upsample": (1,)}
"""Inputs that are float32 in older operator sets, or must stay exact (scales), by operator."""

_SINGLE_OUTPUTS = {"DequantizeLinear": 0, "DynamicQuantizeLinear": 1}
"""The output of an operator that is float32, as its scale is."""


def in_bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Round float32 weights to values of bfloat16, to nearest even, stored as float32.

    Scales of quantised values and of sizes, and statistics of batch norms, stay exact.

    Args:
        model: modified in place.
    """
    from onnx import TensorProto, numpy_helper

    exact = _exact(model).union(*(node.input[3:5] for node in model.graph.node
                                  if node.op_type == "BatchNormalization"))
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.name in exact:
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
    unchanged. Weights beyond float16's range are clipped to it. Values are cast to float32 for
    quantisation, and scales stay exact. Branches and loop bodies stay float32: what they read from
    outside of them is cast.

    Args:
        model: a graph of float32, modified in place.
    """
    from onnx import TensorProto, numpy_helper

    largest = numpy.finfo(numpy.float16).max
    _name_values(model)
    floats = _float_names(model)
    exact = _exact(model)
    single: Set[str] = set()
    for name, tensor in _floats(model):
        if name in exact:
            single.add(name)
            continue
        value = numpy_helper.to_array(tensor).clip(-largest, largest)
        with numpy.errstate(under="ignore"):  # an error where the program has set it so
            half = value.astype(numpy.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if (node.op_type, attribute.name, attribute.i) == ("Cast", "to", TensorProto.FLOAT):
                attribute.i = TensorProto.FLOAT16
    del model.graph.value_info[:]
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    nodes = list(_with_casts(model, single, floats))
    for entry in _float_values(model.graph.input):
        if entry.name in weights:  # listed among the inputs in old files
            entry.type.tensor_type.elem_type = weights[entry.name]
            continue
        inner = f"{entry.name}_float16"
        _rename(entry.name, inner, [node.input for node in nodes])
        nodes.insert(0, _cast(entry.name, inner, entry.name, TensorProto.FLOAT16))
    for entry in _float_values(model.graph.output):
        inner = f"{entry.name}_float16"
        _rename(entry.name, inner, [names for node in nodes for names in (node.input, node.output)])
        nodes.append(_cast(inner, entry.name, entry.name, TensorProto.FLOAT))
    replace_all(model.graph.node, nodes)
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


def _name_values(model: onnx.ModelProto) -> None:
    """Replace numbers in constants by tensors."""
    import onnx

    for node in model.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name in ("value_float", "value_floats"):
                value = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                attribute.CopyFrom(onnx.helper.make_attribute(
                    "value", onnx.numpy_helper.from_array(numpy.asarray(value, numpy.float32))))


def _floats(model: onnx.ModelProto) -> Iterator[Tuple[str, Any]]:
    """Yield the names and tensors of float32 weights and constants."""
    from onnx import TensorProto

    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            yield tensor.name, tensor
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                yield node.output[0], attribute.t


def _exact(model: onnx.ModelProto) -> Set[str]:
    """Return the names of values that must not be rounded."""
    return {node.input[place] for node in model.graph.node for place in _single_places(node)}


def _single_places(node: Any) -> Sequence[int]:
    """Return the inputs of a node that are float32 or integers."""
    if node.op_type.startswith("QLinear"):
        return range(len(node.input))
    return [place for place in _SINGLE_INPUTS.get(node.op_type, ()) if place < len(node.input)]


def _float_names(model: onnx.ModelProto) -> Set[str]:
    """Return the names of float32 values, if some nodes have branches or loop bodies."""
    if not any(True for _ in subgraphs(model.graph)):
        return set()
    graph = inferred(model)
    return {name for name, _ in _floats(model)} | {
        entry.name for entry in _float_values((*graph.value_info, *graph.input, *graph.output))}


def _with_casts(model: onnx.ModelProto, single: Set[str], floats: Set[str]) -> Iterator[Any]:
    """Yield the nodes, with casts between float16 and the values that are float32.

    Args:
        model: its nodes are modified.
        single: names of weights and constants that are float32.
        floats: names of all values that were float32, for nodes with branches or loop bodies.
    """
    from onnx import TensorProto

    made: Set[str] = set()
    for node in model.graph.node:
        if any(True for _ in bodies_of(node)):
            yield from _around(node, floats - single, made)
            continue
        places = _single_places(node)
        for place, name in enumerate(node.input):
            if (name in single) == (place in places) or not name \
                    or (place in places and node.op_type not in _SINGLE_INPUTS):
                continue
            to, kind = (TensorProto.FLOAT, "float32") if place in places else (
                TensorProto.FLOAT16, "float16")
            node.input[place] = f"{name}_{kind}"
            if node.input[place] not in made:
                made.add(node.input[place])
                yield _cast(name, node.input[place], node.input[place], to)
        yield node
        place = _SINGLE_OUTPUTS.get(node.op_type, -1)
        if place >= 0:
            name = node.output[place]
            node.output[place] = f"{name}_float32"
            made.add(node.output[place])
            yield _cast(node.output[place], name, name, TensorProto.FLOAT16)


def _around(node: Any, floats: Set[str], made: Set[str]) -> Iterator[Any]:
    """Yield a node with branches or loop bodies, between casts from and to float16.

    Args:
        node: modified.
        floats: names of values that are float16 instead of float32.
        made: names of the casts so far; those of this node are added.
    """
    from onnx import TensorProto

    read = dict.fromkeys(name for name in (*node.input, *captured(node)) if name in floats)
    for name in read:
        single = f"{name}_float32"
        if single not in made:
            made.add(single)
            yield _cast(name, single, single, TensorProto.FLOAT)
        _rename(name, single, [node.input])
        for body in bodies_of(node):
            _rename_within(body, name, single)
    results = [name for name in node.output if name in floats]
    for name in results:
        _rename(name, f"{name}_float32", [node.output])
    yield node
    for name in results:
        made.add(f"{name}_float32")
        yield _cast(f"{name}_float32", name, name, TensorProto.FLOAT16)


def _rename_within(graph: Any, old: str, new: str) -> None:
    """Rename a value of the outer graph in a branch or loop body, and in those within it."""
    if old in defined(graph):  # another value of this name
        return
    _rename(old, new, [node.input for node in graph.node])
    for entry in graph.output:
        if entry.name == old:
            entry.name = new
    for node in graph.node:
        for body in bodies_of(node):
            _rename_within(body, old, new)
