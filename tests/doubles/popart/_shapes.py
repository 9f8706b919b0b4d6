"""Types and shapes of the tensors of a model."""

import numpy as np
import torch

from popart import _executor
from popart._models import DOMAIN
from popart._tensors import TensorInfo, info_of

_SAME_SHAPE = ("Swish", "Gelu", "GeluErf", "Scale", "Detach", "CheckpointOutput",
               "GroupNormalization")
_LOSSES = ("Nll", "IdentityLoss", "L1")


def infos(model, wanted):
    """Return the `TensorInfo` by id, of those `wanted` and of all that are easily known."""
    known = _inferred(model)
    if not set(wanted) <= set(known) and set(wanted) <= {
            name for node in model.graph.node for name in node.output}:
        known = {**_measured(model, known), **known}
    return known


def _measured(model, known):
    """Return the infos of all results, from computing them for zeros."""
    graph = _executor.Graph(model, False)
    inputs = {value.name: torch.zeros(known[value.name].shape(), dtype=_executor.tensor(
        np.zeros((), known[value.name].data_type_lcase())).dtype)
        for value in model.graph.input if value.name not in graph.weights}
    floating = "FLOAT16" if graph.halves else "FLOAT"
    names = [name for node in model.graph.node for name in node.output]
    with torch.no_grad():
        values = graph.run(inputs, graph.weights, [name for name in names if name])
    return {name: TensorInfo(floating if value.is_floating_point() else "BOOL" if value.dtype
                             is torch.bool else "INT32", value.shape)
            for name, value in values.items()}


def _inferred(model):
    """Return the shapes of ONNX's own inference, without those that a graph computes."""
    import onnx

    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    del plain.graph.node[:]
    names = {one.name for one in plain.graph.output}
    for node in model.graph.node:
        plain.graph.node.extend(_stand_ins(node))
    known = {value.name: info_of(value) for value in plain.graph.output}
    del plain.graph.output[:]
    plain = onnx.shape_inference.infer_shapes(plain, data_prop=True)
    known.update((value.name, info_of(value)) for value in
                 [*plain.graph.input, *plain.graph.value_info, *plain.graph.output])
    for one in plain.graph.initializer:
        known[one.name] = TensorInfo(onnx.TensorProto.DataType.Name(one.data_type),
                                     list(one.dims))
    made = {name for node in model.graph.node for name in node.output} | names
    return {name: _narrowed(info) if name in made else info
            for name, info in known.items() if info is not None}


def _narrowed(info):
    """Whole numbers have 32 bits on the device."""
    narrow = {"INT64": "INT32", "UINT64": "UINT32"}.get(info.data_type())
    return info if narrow is None else TensorInfo(narrow, info.shape())


def _stand_ins(node):
    """Return ONNX's own nodes with outputs of the same shapes."""
    import onnx

    if node.domain != DOMAIN:
        return [node]
    if node.op_type == "BatchNormalization":
        return [onnx.helper.make_node(node.op_type, node.input, node.output)]
    if node.op_type in _LOSSES:
        reduction = [one.s for one in node.attribute if one.name == "reduction"]
        keep = reduction == [b"None"]
        kind = {"axes": [1], "keepdims": 0} if node.op_type == "Nll" else {}
        if keep and not kind:
            return [onnx.helper.make_node("Identity", node.input[:1], node.output)]
        kind = kind if keep else {"keepdims": 0}
        return [onnx.helper.make_node("ReduceSum", node.input[:1], node.output, **kind)]
    if node.op_type in _SAME_SHAPE:
        return [onnx.helper.make_node("Identity", node.input[:1], node.output[:1])]
    raise NotImplementedError(f"the double has no {DOMAIN}.{node.op_type}")
