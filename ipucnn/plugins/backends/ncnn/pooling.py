"""Translates pooling."""

from __future__ import annotations

from typing import Callable, Dict

from ipucnn.plugins.backends.ncnn.graph_translation import Translation, Value
from ipucnn.plugins.backends.ncnn.graph_view import Node
from ipucnn.plugins.backends.ncnn.weighted import padding

_MAX, _MEAN = 0, 1
_AS_GIVEN = 1
"""Numbers of ncnn's kinds of pooling, and of padding exactly as given."""


def _pooling(t: Translation, node: Node) -> None:
    value, attributes = t.value(node), node.attributes
    kernel = attributes["kernel_shape"]
    strides = attributes.get("strides", (1, 1))
    shape = t.shape(node, node.output)
    if len(value.shape) != 3:
        node.refused(f"has an input of shape {value.shape}")
    if any(dilation != 1 for dilation in attributes.get("dilations", (1, 1))):
        node.refused("has dilations")
    pads = padding(node, value.shape[1:], kernel, strides)
    counted = attributes.get("count_include_pad", 0)
    for axis in (0, 1):
        # with rounding up, the last windows can extend beyond the padding
        size = value.shape[1 + axis] + pads[axis]
        last = (shape[1 + axis] - 1) * strides[axis]
        beyond = last + kernel[axis] - size - pads[2 + axis]
        if last >= size or (counted and node.kind == "AveragePool" and beyond > 0):
            node.refused("has windows outside the image")
        pads[2 + axis] += max(0, beyond)
    t.put(node, node.output, t.added(
        "Pooling", [t.stored_as(node, value, value.shape)], shape,
        {0: _MAX if node.kind == "MaxPool" else _MEAN, 1: kernel[1], 11: kernel[0],
         2: strides[1], 12: strides[0], 13: pads[0], 3: pads[1], 15: pads[2], 14: pads[3],
         5: _AS_GIVEN, 6: counted}))


def _global(t: Translation, node: Node) -> None:
    _over_image(t, node, _MAX if node.kind == "GlobalMaxPool" else _MEAN)


def _mean(t: Translation, node: Node) -> None:
    value = t.value(node)
    axes = t.view.setting(node, "axes", 1)
    rank = len(value.shape) + 1
    if axes is None or sorted(int(axis) % rank for axis in axes) != [2, 3] or rank != 4:
        node.refused("is no mean over height and width")
    _over_image(t, node, _MEAN)


def _over_image(t: Translation, node: Node, kind: int) -> None:
    value = t.value(node)
    if len(value.shape) != 3:
        node.refused(f"has an input of shape {value.shape}")
    made = t.added("Pooling", [t.stored_as(node, value, value.shape)], value.shape[:1],
                   {0: kind, 4: 1})
    t.put(node, node.output, Value(made.blob, t.shape(node, node.output), made.stored))


TRANSLATORS: Dict[str, Callable[[Translation, Node], None]] = {
    "AveragePool": _pooling, "GlobalAveragePool": _global, "GlobalMaxPool": _global,
    "MaxPool": _pooling, "ReduceMean": _mean}
