"""Folds constant expressions and removes identities in an exported graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Set

from ipucnn.onnx.graph_entries import replace_all
from ipucnn.onnx.target import nodes, subgraphs

if TYPE_CHECKING:
    import onnx

_SMALL = 4096
"""Largest number of elements of a folded constant; weights are not folded."""

_RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli",
           "Multinomial", "Dropout")


def simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model without identities and constant expressions.

    Tracing leaves the computation of paddings and shapes in the graph, which engines of older
    operator sets cannot always fold, and an identity for each weight that equals another.

    Args:
        model: modified in place.
    """
    while _fold(model):  # nodes after a constant may be constant, too
        pass
    return model


def _fold(model: onnx.ModelProto) -> bool:
    """Fold the constants known now; return whether more may follow."""
    import onnx
    from onnx import numpy_helper

    values: Dict[str, Any] = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        if _elements(tensor.dims) <= _SMALL}
    weights = {tensor.name for tensor in model.graph.initializer}
    fixed = _fixed(model)
    shapes = static_shapes(model) if any(
        node.op_type == "Shape" for node in model.graph.node) else {}
    renamed: Dict[str, str] = {}
    kept: List[onnx.NodeProto] = []
    computed: Dict[str, onnx.NodeProto] = {}
    constants = 0
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        result = None if node.output[0] in fixed else _value(node, values, weights, shapes, model)
        if node.op_type == "Identity" and node.output[0] not in fixed:
            renamed[node.output[0]] = node.input[0]
        elif node.op_type == "Constant":
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            if value is not None and _elements(value.dims) <= _SMALL:
                values[node.output[0]] = numpy_helper.to_array(value)
            computed[node.output[0]] = node
            constants += 1
        elif result is not None:
            values[node.output[0]] = result
            computed[node.output[0]] = onnx.helper.make_node(
                "Constant", [], [node.output[0]],
                value=numpy_helper.from_array(result, node.output[0]))
        else:
            kept.append(node)
    _rebuild(model, kept, computed)
    return len(computed) > constants or bool(renamed)


def static_shapes(model: onnx.ModelProto) -> Dict[str, List[int]]:
    """Return the known shapes of all tensors except weights."""
    return {name: [size for size in shape if size is not None]
            for name, shape in inferred_shapes(model).items() if None not in shape}


def inferred_shapes(model: onnx.ModelProto) -> Dict[str, List[Optional[int]]]:
    """Return the shapes of all tensors except weights; None for a size that is not known.

    Those of tensors in branches and loop bodies are included.
    """
    graph = inferred(model)
    dims = {entry.name: entry.type.tensor_type.shape.dim
            for one in (*subgraphs(graph), graph)
            for entry in (*one.value_info, *one.input, *one.output)
            if entry.type.tensor_type.HasField("shape")}
    return {name: [dim.dim_value if dim.HasField("dim_value") else None for dim in shape]
            for name, shape in dims.items()}


def inferred(model: onnx.ModelProto) -> onnx.GraphProto:
    """Return the graph of a model with the inferred types and shapes, without its larger weights.

    These are among its inputs.
    """
    import onnx

    # without the weights, whose copies would take most of the time
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if _elements(tensor.dims) <= _SMALL:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(onnx.helper.make_tensor_value_info(
                tensor.name, tensor.data_type, tensor.dims))
    return onnx.shape_inference.infer_shapes(light).graph


def _value(node: onnx.NodeProto, values: Dict[str, Any], weights: Set[str],
           shapes: Dict[str, List[int]], model: onnx.ModelProto) -> Optional[Any]:
    """Return the output of a node, or None when it is not constant or not known."""
    import numpy

    if node.op_type == "Shape" and node.input[0] in shapes and not node.attribute:
        return numpy.array(shapes[node.input[0]], dtype=numpy.int64)
    given = [name for name in node.input if name]
    if (node.op_type in (*_RANDOM, "Constant", "Identity") or node.domain or len(node.output) != 1
            or any(name not in values or name in weights for name in given)):
        return None
    try:
        result = numpy.asarray(_evaluated(node, values, model))
    except Exception:  # the evaluator lacks some operators: unfolded nodes stay correct
        return None
    return result if result.dtype != object and result.size <= _SMALL else None


def _evaluated(node: onnx.NodeProto, values: Dict[str, Any], model: onnx.ModelProto) -> Any:
    import onnx
    from onnx.reference import ReferenceEvaluator

    given = {name: values[name] for name in node.input if name}
    graph = onnx.helper.make_graph(
        [node], "constant",
        [onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
         for name, value in given.items()],
        [onnx.helper.make_empty_tensor_value_info(node.output[0])])
    alone = onnx.helper.make_model(graph, opset_imports=list(model.opset_import),
                                   ir_version=model.ir_version)
    results: Any = ReferenceEvaluator(alone).run(None, given)
    return results[0]


def _rebuild(model: onnx.ModelProto, kept: List[onnx.NodeProto],
             computed: Dict[str, onnx.NodeProto]) -> None:
    """Rebuild the graph from the kept nodes, with each constant just before its first use."""
    ordered, placed = [], set()
    outputs = {output.name for output in model.graph.output}
    for node in kept:
        for name in _reads(node):
            if name in computed and name not in placed:
                placed.add(name)
                ordered.append(computed[name])
        ordered.append(node)
    ordered += [node for name, node in computed.items()
                if name in outputs and name not in placed]
    used = outputs.union(*map(_reads, ordered))
    replace_all(model.graph.node, ordered)
    weights = model.graph.initializer
    for place in reversed(range(len(weights))):  # in place: they may be most of the memory
        if weights[place].name not in used:
            del weights[place]


def _fixed(model: onnx.ModelProto) -> Set[str]:
    """Return names to keep: the outputs, and references in branches and loop bodies."""
    return {output.name for output in model.graph.output} | {
        name for node in model.graph.node for name in _reads(node)[len(node.input):]}


def _reads(node: onnx.NodeProto) -> List[str]:
    """Return a node's input names, followed by those of its branches and loop bodies."""
    return [name for inner in nodes([node]) for name in inner.input]


def _elements(dims: Any) -> int:
    count = 1
    for dim in dims:
        count *= dim
    return count
