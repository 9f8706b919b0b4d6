"""Types of all tensors of a model, and what PopART refuses about them; see `rules/popart.json`."""

import numpy as np

from popart._errors import popart_exception

_ELEMENTS = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "Equal", "Greater",
             "Less", "Mod", "Concat", "MatMul", "Gemm", "Conv", "PRelu")
_NUMBERS = {"Clip": (1, 2), "Pad": (2,)}
_BOOLS = ("Equal", "Greater", "Less", "And", "Or", "Not", "IsNaN", "IsInf")
_WHOLE = ("Shape", "ArgMax", "ArgMin")
_LIKE = ("RandomUniformLike", "RandomNormalLike")
FLOAT, INT64, BOOL, FLOAT16 = 1, 7, 9, 10


def types(model):
    """Return the ONNX type of each tensor.

    Raises:
        popart_exception: an operator does not take its inputs' types.
    """
    known = {one.name: one.data_type for one in model.graph.initializer}
    sizes = {one.name: int(np.prod(one.dims, dtype=np.int64)) for one in model.graph.initializer}
    for value in model.graph.input:
        known.setdefault(value.name, value.type.tensor_type.elem_type)
    for node in model.graph.node:
        attributes = {one.name: one for one in node.attribute}
        given = [known.get(name) for name in node.input]
        if node.op_type == "Constant":
            sizes[node.output[0]] = int(np.prod(attributes["value"].t.dims, dtype=np.int64))
        _check(node, given, [sizes.get(name) for name in node.input])
        for name, kind in zip(node.output, _made(node, given, attributes)):
            known[name] = kind
    return known


def has_half_gradient(model, kinds, trained):
    """Return whether a weight of a convolution or matrix product has a gradient in halves."""
    made = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("Conv", "MatMul", "Gemm"):
            for name in node.input[1:]:
                source = made[name].input[0] if name in made and made[name].input else name
                if kinds.get(name) == FLOAT16 and {name, source} & set(trained):
                    return True
    return False


def _check(node, given, sizes):
    if node.op_type in _ELEMENTS or node.op_type == "Where":
        found = {kind for kind in (given[1:] if node.op_type == "Where" else given)
                 if kind is not None}
        if len(found) > 1:
            names = " and ".join(sorted({FLOAT: "FLOAT", FLOAT16: "FLOAT16"}.get(kind, str(kind))
                                        for kind in found))
            raise popart_exception(f"{node.op_type} {node.name}: the types of its inputs differ: "
                                   f"{names}")
    for place in _NUMBERS.get(node.op_type, ()):
        if place < len(node.input) and node.input[place]:
            if given[place] != FLOAT:
                raise popart_exception(
                    "Trying to get data as incorrect type. Trying to get data as FLOAT but it is "
                    f"of type {given[place]} ({node.op_type} {node.name})")
            if sizes[place] not in (None, 1):
                raise popart_exception(f"Expected input at index {place} to has a shape of [1]. "
                                       f"It has shape [{sizes[place]}]")


def _made(node, given, attributes):
    first = given[0] if given else None
    kind = node.op_type
    if kind == "Constant":
        return [attributes["value"].t.data_type]
    if kind == "Cast":
        return [attributes["to"].i]
    if kind == "ConstantOfShape":
        return [attributes["value"].t.data_type if "value" in attributes else FLOAT]
    if kind in _LIKE:
        return [attributes["dtype"].i if "dtype" in attributes else first]
    if kind.startswith("Random"):
        return [attributes["dtype"].i if "dtype" in attributes else FLOAT]
    if kind in _BOOLS:
        return [BOOL]
    if kind in _WHOLE:
        return [INT64]
    if kind == "Where":
        return [given[1]]
    if kind == "BatchNormalization":
        return [first, *(given[3], given[4]) * 2]
    return [first] * len(node.output)
