"""Executes an ONNX graph with torch, in float32, node by node."""

import numpy as np
import torch

from popart._operators import operator


class Graph:
    """The nodes of a model in order.

    Attributes:
        weights: used initialisers in floating point; halves are float32 here as well.
        fixed: initialisers in whole numbers, and constants.
        halves: ids of the initialisers that are halves on the device.
        statistics: for the id of a running mean or variance, that of its successor.
    """

    def __init__(self, model, training):
        import onnx

        self._training = training
        self._nodes, self.fixed, self.weights, self.halves = [], {}, {}, set()
        self.statistics = {}
        used = {name for node in model.graph.node for name in node.input}
        for one in model.graph.initializer:
            if one.name not in used:
                continue
            value = tensor(onnx.numpy_helper.to_array(one))
            if value.is_floating_point():
                self.weights[one.name] = value
                if one.data_type == onnx.TensorProto.FLOAT16:
                    self.halves.add(one.name)
            else:
                self.fixed[one.name] = value
        for node in model.graph.node:
            attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
            if node.op_type == "Constant":
                self.fixed[node.output[0]] = tensor(
                    onnx.numpy_helper.to_array(attributes["value"]))
                continue
            if "value" in attributes and isinstance(attributes["value"], onnx.TensorProto):
                attributes["value"] = onnx.numpy_helper.to_array(attributes["value"])
            if node.op_type in ("Split", "BatchNormalization"):
                attributes["#outputs"] = len(node.output)
            if node.op_type == "BatchNormalization" and len(node.output) == 5:
                self.statistics[node.input[3]] = node.output[1]
                self.statistics[node.input[4]] = node.output[2]
            self._nodes.append((node.domain, node.op_type, attributes, list(node.input),
                                list(node.output)))
        self._last = {name: place for place, node in enumerate(self._nodes) for name in node[3]}

    def run(self, inputs, weights, wanted):
        """Return the wanted tensors by id."""
        values = {**self.fixed, **weights, **inputs}
        for place, (domain, kind, attributes, takes, gives) in enumerate(self._nodes):
            more = {}
            if "#outputs" in attributes:
                more["outputs"] = attributes["#outputs"]
            if kind == "Dropout":
                more["training"] = self._training
            given = [values[name] if name else None for name in takes]
            made = operator(domain, kind)(attributes, *given, **more)
            made = made if isinstance(made, tuple) else (made,)
            values.update(zip(gives, made))
            for name in takes:
                if self._last[name] == place and name not in wanted and name not in weights:
                    values.pop(name, None)
        return {name: values[name] for name in wanted}


def tensor(array):
    array = np.array(array)
    if array.dtype in (np.float16, np.float64):
        array = array.astype(np.float32)
    if array.dtype in (np.int32, np.int16, np.uint16):
        array = array.astype(np.int64)
    return torch.from_numpy(array)


def tensors(arrays):
    """Return arrays by id as tensors to compute with, which have memory of their own."""
    return {name: tensor(array) for name, array in arrays.items()}


def array(value, info):
    """Return a tensor as an array of the type that it has on the device."""
    return value.detach().cpu().numpy().astype(info.data_type_lcase())
