"""Translates operators that move, select or join elements."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any, Callable, Dict, List, Sequence, Tuple

from ipucnn.plugins.backends.ncnn.graph_translation import Shape, Translation, Value
from ipucnn.plugins.backends.ncnn.graph_view import Node
from ipucnn.plugins.backends.ncnn.weighted import group_norm

_FLOAT = 1
"""The data type FLOAT of `onnx.TensorProto`."""

_PADDINGS = {"constant": 0, "edge": 1, "reflect": 2}

_ORDERS = {(0, 2, 1): 1, (1, 0, 2): 2, (1, 2, 0): 3, (2, 0, 1): 4, (2, 1, 0): 5}
"""Numbers of the permutations of three dimensions."""


def _same(t: Translation, node: Node) -> None:
    """Translate an operator that changes nothing in inference."""
    t.put(node, node.output, t.value(node))


def _cast(t: Translation, node: Node) -> None:
    if node.attributes["to"] != _FLOAT:
        node.refused("converts to another type than float32")
    _same(t, node)  # the session converts images to float32


def _dropout(t: Translation, node: Node) -> None:
    if node.input(2) and any(t.view.constant(node, 2).reshape(-1)):
        node.refused("is in training mode")
    _same(t, node)


def _reshape(t: Translation, node: Node) -> None:
    """Translate an operator that leaves all elements in order, which needs no layer."""
    if node.kind in ("Squeeze", "Unsqueeze"):
        axes = t.view.setting(node, "axes", 1)
        # they count the dimensions of the longer shape
        longer = node.input(0) if node.kind == "Squeeze" else node.output
        if axes is None or any(int(axis) % len(t.view.shapes[longer]) == 0 for axis in axes):
            node.refused("changes the dimension of the batch")
    if node.kind == "Flatten" and node.attributes.get("axis", 1) == 0:
        node.refused("does not keep the images of a batch apart")
    if node.kind == "Reshape" and group_norm(t, node):
        return
    value, shape = t.value(node), t.shape(node, node.output)
    if prod(shape) != prod(value.shape):
        node.refused("does not keep the images of a batch apart")
    t.put(node, node.output, replace(value, shape=shape))


def _transpose(t: Translation, node: Node) -> None:
    value = t.value(node)
    order = list(node.attributes.get("perm", range(len(value.shape), -1, -1)))
    if order[0] != 0:
        node.refused("moves the dimension of the batch")
    shape, permutation = _joined(value.shape, [axis - 1 for axis in order[1:]])
    result = t.shape(node, node.output)
    if permutation == tuple(range(len(permutation))):
        t.put(node, node.output, replace(value, shape=result))
        return
    if len(permutation) > 3:
        node.refused(f"permutes {len(permutation)} dimensions")
    number = _ORDERS[permutation] if len(permutation) == 3 else 1
    made = t.added("Permute", [t.stored_as(node, value, shape)],
                   tuple(shape[axis] for axis in permutation), {0: number})
    t.put(node, node.output, Value(made.blob, result, made.stored))


def _joined(shape: Shape, order: Sequence[int]) -> Tuple[Shape, Tuple[int, ...]]:
    """Return a shape and its permutation with the dimensions joined that stay side by side."""
    kept = [axis for axis in range(len(shape)) if shape[axis] != 1]
    runs: List[List[int]] = []
    for axis in (axis for axis in order if axis in kept):
        place = kept.index(axis)
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    before = sorted(runs)
    return (tuple(prod(shape[kept[place]] for place in run) for run in before),
            tuple(before.index(run) for run in runs))


def _slice(t: Translation, node: Node) -> None:
    value = t.value(node)
    starts, ends, axes, steps = (_integers(t, node, name, place) for place, name in enumerate(
        ("starts", "ends", "axes", "steps"), 1))
    rank = len(value.shape) + 1
    axes = [axis % rank for axis in axes] or list(range(len(starts)))
    bounds = [(0, size) for size in value.shape]
    strides = [1] * len(value.shape)
    for place, axis in enumerate(axes):
        step = steps[place] if steps else 1
        if axis == 0 or step < 1:
            node.refused("selects images of a batch" if axis == 0 else "has a negative step")
        first, last, _ = slice(starts[place], ends[place]).indices(value.shape[axis - 1])
        if last <= first:
            node.refused("selects nothing")
        bounds[axis - 1], strides[axis - 1] = (first, last), step
    value = t.stored_as(node, value, value.shape)
    shape = tuple(last - first for first, last in bounds)
    if shape != value.shape:
        value = t.added("Crop", [value], shape, {
            9: [first for first, _ in bounds], 10: [last for _, last in bounds],
            11: list(range(len(shape)))})
    if any(stride != 1 for stride in strides):
        if len(shape) != 3 or strides[0] != 1:
            node.refused("has steps in other dimensions than height and width")
        shape = (shape[0], *(-(-size // stride) for size, stride in zip(shape[1:], strides[1:])))
        # the maximum of one element
        value = t.added("Pooling", [value], shape, {0: 0, 1: 1, 11: 1, 2: strides[2],
                                                    12: strides[1], 5: 1})
    t.put(node, node.output, value)


def _integers(t: Translation, node: Node, name: str, place: int) -> List[int]:
    return [int(value) for value in t.view.setting(node, name, place) or ()]


def _concatenation(t: Translation, node: Node) -> None:
    values = [t.value(node, place) for place in range(len(node.inputs))]
    shape = t.shape(node, node.output)
    axis = node.attributes["axis"] % (len(shape) + 1) - 1
    if axis < 0:
        node.refused("joins images to a batch")
    t.put(node, node.output, t.added(
        "Concat", [t.stored_as(node, value, value.shape) for value in values], shape, {0: axis}))


def _padding(t: Translation, node: Node) -> None:
    value = t.value(node)
    amounts, axes = _integers(t, node, "pads", 1), _integers(t, node, "axes", 3)
    rank = len(value.shape) + 1
    mode = node.attributes.get("mode", b"constant").decode()
    axes = [axis % rank for axis in axes] or list(range(rank))
    pads: Dict[int, Tuple[int, int]] = dict.fromkeys(range(4), (0, 0))
    pads.update({axis: (first, last) for axis, first, last in zip(
        axes, amounts, amounts[len(axes):])})
    fill = float((t.view.setting(node, "value", 2) or [0.0])[0])
    (front, behind), (top, below), (left, right) = pads[1], pads[2], pads[3]
    if rank != 4 or mode not in _PADDINGS or any(pads[0]) or min(map(min, pads.values())) < 0 \
            or (mode != "constant" and (front or behind)):
        node.refused("adds no margins to an image")
    reader = t.view.only_reader(node.output)
    if mode == "constant" and fill == 0 and not (front or behind) and reader is not None \
            and reader.kind == "Conv":
        t.pad_later(node.output, replace(value, margins=(top, left, below, right)))
        return
    parameters: Dict[int, Any] = {0: top, 1: below, 2: left, 3: right, 4: _PADDINGS[mode],
                                  5: fill, 7: front, 8: behind}
    t.put(node, node.output, t.added("Padding", [t.stored_as(node, value, value.shape)],
                                     t.shape(node, node.output), parameters))


def _softmax(t: Translation, node: Node) -> None:
    value = t.value(node)
    rank = len(value.shape) + 1
    axis = node.attributes.get("axis", -1 if t.view.opset >= 13 else 1) % rank
    if axis == 0 or (t.view.opset < 13 and axis != rank - 1):
        node.refused("is a softmax over several dimensions")
    made = t.added("Softmax", [t.stored_as(node, value, value.shape)], value.shape,
                   {0: axis - 1, 1: 1})
    t.put(node, node.output, made)


TRANSLATORS: Dict[str, Callable[[Translation, Node], None]] = {
    "Cast": _cast, "Concat": _concatenation, "Dropout": _dropout, "Flatten": _reshape,
    "Identity": _same, "Pad": _padding, "Reshape": _reshape, "Slice": _slice,
    "Softmax": _softmax, "Squeeze": _reshape, "Transpose": _transpose, "Unsqueeze": _reshape}
