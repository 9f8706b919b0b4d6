"""Replaces PRelu, for which PopART has no gradient: layers before it would not be trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, List

import numpy

from ipucnn.onnx.graph_entries import replace_all

if TYPE_CHECKING:
    import onnx


def differentiable_prelu(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with each PRelu as a product and a choice, which have gradients.

    Source: PopART's `op/prelu.cpp`, which has no gradient, and `gradgrower.cpp`, which ignores an
    operator without one.

    Args:
        model: with operator set 9 or newer, in single precision; changed in place.
    """
    from onnx import helper, numpy_helper

    nodes: List[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "PRelu":
            nodes.append(node)
            continue
        x, slope = node.input
        out = node.output[0]
        zero, positive, scaled = (f"{out}/{name}" for name in ("zero", "positive", "scaled"))
        value = numpy_helper.from_array(numpy.zeros(1, numpy.float32))
        nodes += [  # named as the node, for its pipeline stage
            helper.make_node("Constant", [], [zero], value=value),
            helper.make_node("Greater", [x, zero], [positive], name=node.name),
            helper.make_node("Mul", [slope, x], [scaled], name=node.name),
            helper.make_node("Where", [positive, x, scaled], [out], name=node.name)]
    replace_all(model.graph.node, nodes)
    return model
