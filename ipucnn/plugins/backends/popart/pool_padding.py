"""Rewrites average pools that count their padding, which PopART does not support."""

from __future__ import annotations

from typing import TYPE_CHECKING, List

import numpy

from ipucnn.onnx.graph_entries import replace_all
from ipucnn.onnx.target import opset_of

if TYPE_CHECKING:
    import onnx

_COUNTED = "count_include_pad"


def without_counted_padding(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose average pools do not count their padding.

    Padding that counts becomes an operator before the pool. torch's exporter also marks pools
    without padding.

    Source: PopART's `AveragePoolOp::getSpatialK`.

    Args:
        model: changed in place.
    """
    nodes: List[onnx.NodeProto] = []
    for node in model.graph.node:
        given = {one.name: one for one in node.attribute}
        by_rule = "auto_pad" in given and given["auto_pad"].s.startswith(b"SAME")
        if node.op_type == "AveragePool" and _COUNTED in given and not by_rule:
            pads = list(given["pads"].ints) if "pads" in given else []
            gone = {_COUNTED}
            if given[_COUNTED].i and any(pads):
                nodes += _padding(node, pads, opset_of(model))
                gone.add("pads")
            for place in reversed(range(len(node.attribute))):
                if node.attribute[place].name in gone:
                    del node.attribute[place]
        nodes.append(node)
    if len(nodes) > len(model.graph.node):
        replace_all(model.graph.node, nodes)
    return model


def _padding(pool: onnx.NodeProto, pads: List[int], opset: int) -> List[onnx.NodeProto]:
    """Return nodes that pad the input of a pool with zeros, and make the pool take their output."""
    from onnx import helper, numpy_helper

    half = len(pads) // 2
    sizes = [0, 0, *pads[:half], 0, 0, *pads[half:]]
    taken, pool.input[0] = pool.input[0], pool.output[0] + "/padded"
    name = pool.name.rpartition("/")[0] + "/Pad"  # in the pool's module
    if opset < 11:
        return [helper.make_node("Pad", [taken], [pool.input[0]], name=name, pads=sizes)]
    values = numpy_helper.from_array(numpy.array(sizes, numpy.int64))
    return [helper.make_node("Constant", [], [pool.input[0] + "/sizes"], value=values),
            helper.make_node("Pad", [taken, pool.input[0] + "/sizes"], [pool.input[0]], name=name)]
