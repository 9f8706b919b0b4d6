"""Translates operators that compute each element from one element of each operand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Tuple

import numpy

from ipucnn.plugins.backends.ncnn.graph_translation import Translation, Value
from ipucnn.plugins.backends.ncnn.graph_view import Node
from ipucnn.plugins.backends.ncnn.param_file import Parameter

if TYPE_CHECKING:
    Array = numpy.ndarray[Any, Any]

_LARGEST = 3.4028234e38
"""The bound of a Clip without a bound, which is the largest float32."""

_OPERATIONS = {"Add": 0, "Sub": 1, "Mul": 2, "Div": 3}
_REVERSED = {"Add": 0, "Sub": 7, "Mul": 2, "Div": 8}
"""Numbers of operations, and those with operands in the other order."""

_UNARY = {"Abs": 0, "Neg": 1, "Sqrt": 5, "Reciprocal": 15}
_SQUARE = 4
"""Numbers of operations. ncnn's powers are not defined for negative numbers, and its logarithm not
for 0."""


def _unary(t: Translation, node: Node) -> None:
    kind, parameters = _LAYERS[node.kind](t, node)
    _applied(t, node, node.output, kind, parameters)


def _applied(t: Translation, node: Node, name: str, kind: str,
             parameters: Mapping[int, Parameter]) -> None:
    value = t.value(node)
    made = t.added(kind, [value], value.stored, parameters)
    t.put(node, name, Value(made.blob, value.shape, value.stored))


def _bounds(t: Translation, node: Node) -> Tuple[float, float]:
    """Return the bounds of a Clip."""
    found = []
    for place, (name, default) in enumerate((("min", -_LARGEST), ("max", _LARGEST)), 1):
        value = t.view.setting(node, name, place)
        found.append(default if value is None
                     else float(numpy.clip(value[0], -_LARGEST, _LARGEST)))
    if found[0] > found[1]:
        node.refused("has a minimum above its maximum")
    return found[0], found[1]


def _line(node: Node, slope: float) -> Dict[int, Parameter]:
    """Return the parameters of the line in a HardSigmoid, with ONNX's defaults."""
    alpha = node.attributes.get("alpha", slope)
    if alpha <= 0:
        node.refused(f"has a slope of {alpha}")
    return {0: alpha, 1: node.attributes.get("beta", 0.5)}


def _clip(t: Translation, node: Node) -> Tuple[str, Dict[int, Parameter]]:
    return "Clip", dict(enumerate(_bounds(t, node)))


_LAYERS: Dict[str, Callable[[Translation, Node], Tuple[str, Dict[int, Parameter]]]] = {
    "Clip": _clip,
    "Elu": lambda _, node: ("ELU", {0: node.attributes.get("alpha", 1.0)}),
    "HardSigmoid": lambda _, node: ("HardSigmoid", _line(node, 0.2)),
    "HardSwish": lambda _, node: ("HardSwish", _line(node, 1 / 6)),
    "LeakyRelu": lambda _, node: ("ReLU", {0: node.attributes.get("alpha", 0.01)}),
    "Relu": lambda *_: ("ReLU", {}),
    "Sigmoid": lambda *_: ("Sigmoid", {}),
    "Tanh": lambda *_: ("TanH", {}),
    **{kind: lambda _, node: ("UnaryOp", {0: _UNARY[node.kind]}) for kind in _UNARY},
}
"""The layer of an operator, and its parameters."""

_FUSED = {"Relu": 1, "LeakyRelu": 2, "Clip": 3, "Sigmoid": 4, "HardSwish": 6}
"""Numbers of the activations that convolutions and matrix products compute."""


def fused_activation(t: Translation, node: Node) -> Tuple[str, Dict[int, Parameter]]:
    """Return the name of a layer's output, and the parameters of the activation after it.

    An activation that alone reads the output becomes a part of the layer.
    """
    reader = t.view.only_reader(node.output)
    if reader is None or reader.kind not in _FUSED:
        return node.output, {}
    t.done.add(reader)
    values = list(_LAYERS[reader.kind](t, reader)[1].values())
    parameters: Dict[int, Parameter] = {9: _FUSED[reader.kind]}
    if values:
        parameters[10] = [float(value) for value in values if isinstance(value, (int, float))]
    return reader.output, parameters


def _gate(t: Translation, node: Node) -> None:
    """Translate a sigmoid; with a product with its own input, as Swish or HardSwish."""
    kind, parameters = _LAYERS[node.kind](t, node)
    product = t.view.only_reader(node.output)
    if product is None or product.kind != "Mul" or node.input(0) not in product.inputs:
        _applied(t, node, node.output, kind, parameters)
        return
    t.done.add(product)
    _applied(t, node, product.output, "Swish" if kind == "Sigmoid" else "HardSwish", parameters)


def _parametric_relu(t: Translation, node: Node) -> None:
    value = t.value(node)
    slope = t.per_image(node, t.weights(node, 1), len(value.shape))
    if slope.size != 1:
        if not _is_per_channel(value, slope):
            node.refused("has other slopes than one per channel")
        value = _by_channel(t, node, value)
    made = t.added("PReLU", [value], value.stored, {0: slope.size}, [(slope, False)])
    t.put(node, node.output, Value(made.blob, value.shape, value.stored))


def _is_per_channel(value: Value, array: Array) -> bool:
    """Return whether a constant has one number per channel of a tensor."""
    return bool(array.shape == (*value.shape[:1], *[1] * (len(value.shape) - 1)))


def _by_channel(t: Translation, node: Node, value: Value) -> Value:
    """Return a tensor stored so that its first dimension is that of the channels."""
    if len(value.stored) in (1, 3) and value.stored[0] == value.shape[0]:
        return value
    return t.stored_as(node, value, value.shape)


def scaled(t: Translation, node: Node, value: Value, scale: Array, bias: Array) -> None:
    """Add a multiplication and an addition of a number per channel.

    Further operators of this kind after it become a part of the same layer.
    """
    scale, bias = scale.astype(numpy.float64), bias.astype(numpy.float64)
    reader = t.view.only_reader(node.output)
    while reader is not None and reader.kind in ("Add", "Sub", "Mul", "Div"):
        first, second = _affine(t, reader, value)
        if first is None or second is None:
            break
        scale, bias = scale * first, bias * first + second
        t.done.add(reader)
        node, reader = reader, t.view.only_reader(reader.output)
    source = _by_channel(t, node, value)
    arrays = [(scale, False), *([(bias, False)] if bias.any() else [])]
    made = t.added("Scale", [source], source.stored, {0: len(scale), 1: len(arrays) - 1}, arrays)
    t.put(node, node.output, Value(made.blob, value.shape, source.stored))


def _affine(t: Translation, node: Node, value: Value) -> Tuple[Optional[Array], Optional[Array]]:
    """Return factors and summands per channel that an operator with a constant stands for."""
    place = int(node.input(1) in t.view.constants)
    if node.input(place) not in t.view.constants or len(value.shape) not in (1, 3):
        return None, None
    array = t.per_image(node, t.weights(node, place), len(value.shape))
    if array.size == 1 and array.ndim <= len(value.shape):
        array = numpy.broadcast_to(array.reshape(-1), value.shape[:1])
    elif not _is_per_channel(value, array):
        return None, None
    if node.kind == "Div" and (place == 0 or not array.all()):
        return None, None
    array = array.reshape(-1).astype(numpy.float64)
    ones, zeros = numpy.ones_like(array), numpy.zeros_like(array)
    if node.kind in ("Mul", "Div"):
        return (1 / array if node.kind == "Div" else array), zeros
    if node.kind == "Add":
        return ones, array
    return (ones, -array) if place == 1 else (-ones, array)


def _binary(t: Translation, node: Node) -> None:
    if all(t.depends(node.input(place)) for place in (0, 1)):
        _of_two(t, node)
        return
    place = int(t.depends(node.input(0)))  # of the constant
    value = t.value(node, 1 - place)
    array = t.per_image(node, t.weights(node, place), len(value.shape))
    if array.size == 1:
        operation = (_OPERATIONS if place else _REVERSED)[node.kind]
        made = t.added("BinaryOp", [value], value.stored,
                       {0: operation, 1: 1, 2: float(array.reshape(-1)[0])})
        t.put(node, node.output, Value(made.blob, value.shape, value.stored))
        return
    scale, bias = _affine(t, node, value)
    if scale is not None and bias is not None:
        scaled(t, node, value, scale, bias)
        return
    array = array.reshape((1,) * (len(value.shape) - array.ndim) + array.shape)
    operands = [t.stored_as(node, value, value.shape)]
    operands.insert(place, t.constant_value(array))
    t.put(node, node.output, t.added("BinaryOp", operands, _broadcast(node, *operands),
                                     {0: _OPERATIONS[node.kind]}))


def _power(t: Translation, node: Node) -> None:
    if t.view.constant(node, 1).reshape(-1).tolist() != [2]:
        node.refused("has another exponent than 2")
    _applied(t, node, node.output, "UnaryOp", {0: _SQUARE})


def _of_two(t: Translation, node: Node) -> None:
    first, second = t.value(node, 0), t.value(node, 1)
    if len(first.shape) != len(second.shape):
        node.refused(f"has operands of shapes {first.shape} and {second.shape}")
    shape = _broadcast(node, first, second)
    if first.shape == second.shape:
        stored = max(first.stored, second.stored, key=len)
        first, second = (t.stored_as(node, value, stored) for value in (first, second))
    else:
        first, second = (value if _one_per_channel(value) else
                         t.stored_as(node, value, value.shape) for value in (first, second))
        stored = shape
    made = t.added("BinaryOp", [first, second], stored, {0: _OPERATIONS[node.kind]})
    t.put(node, node.output, Value(made.blob, shape, stored))


def _one_per_channel(value: Value) -> bool:
    """Return whether a tensor of a number per channel is stored so that ncnn broadcasts it."""
    return len(value.shape) == 3 and value.shape[0] > 1 and value.stored == value.shape[:1]


def _broadcast(node: Node, first: Value, second: Value) -> Tuple[int, ...]:
    """Return the shape of a result; one operand is broadcast to the other."""
    shape = tuple(max(pair) for pair in zip(first.shape, second.shape))
    if shape not in (first.shape, second.shape) or any(
            min(pair) not in (1, max(pair)) for pair in zip(first.shape, second.shape)):
        node.refused(f"has operands of shapes {first.shape} and {second.shape}")
    return shape


TRANSLATORS: Dict[str, Callable[[Translation, Node], None]] = {
    **dict.fromkeys(_LAYERS, _unary), **dict.fromkeys(_OPERATIONS, _binary),
    "Sigmoid": _gate, "HardSigmoid": _gate, "Pow": _power, "PRelu": _parametric_relu}
