"""Changes of whole ONNX graphs."""

import numpy as np

from popart import _models
from popart._errors import popart_exception

_FIXED = (2, 3, 4, 5, 6, 7, 12, 13)  # whole numbers among ONNX's types


class GraphTransformer:
    def __init__(self, modelProtoOrFilename):
        self._model = _models.read(modelProtoOrFilename)

    def getModelProto(self):
        return self._model.SerializeToString()

    def removeUnusedInputs(self):
        graph = self._model.graph
        used = {name for node in graph.node for name in node.input}
        inputs = [value for value in graph.input if value.name in used]
        if len(inputs) == len(graph.input):
            return
        kept = {value.name for value in inputs}
        weights = [one for one in graph.initializer if one.name in kept]
        del graph.input[:], graph.initializer[:]
        graph.input.extend(inputs)
        graph.initializer.extend(weights)

    def prepareNodesForTraining(self):
        for place, node in enumerate(self._model.graph.node):
            if node.op_type == "BatchNormalization":
                for index in range(len(node.output), 5):
                    node.output.append(f"BatchNormalization_{node.name}_oi{index}_{5 * place}")

    def convertFloatsToHalfs(self):
        self._convert(1, 10, np.float16)

    def convertDoublesToFloats(self):
        self._convert(11, 1, np.float32)

    def convertDoublesToHalfs(self):
        self._convert(11, 10, np.float16)

    def convertINT64ToINT32(self, clip=False):
        self._convert(7, 6, np.int32, clip)

    def convertUINT8ToINT32(self):
        self._convert(2, 6, np.int32)

    def convertINT8ToINT32(self):
        self._convert(3, 6, np.int32)

    def convertInitializersToConstants(self, ids):
        import onnx

        graph, ids = self._model.graph, list(ids)
        weights = {one.name: one for one in graph.initializer}
        for name in ids:
            if name not in weights:
                raise popart_exception(f"TensorId {name} not in the model initalizers")
        nodes = [onnx.helper.make_node("Constant", [], [name], name=name, value=weights[name])
                 for name in ids] + list(graph.node)
        kept = [one for one in graph.initializer if one.name not in ids]
        inputs = [value for value in graph.input if value.name not in ids]
        del graph.node[:], graph.initializer[:], graph.input[:]
        graph.node.extend(nodes)
        graph.initializer.extend(kept)
        graph.input.extend(inputs)
        _models.check(self._model)

    def convertAllFixedPointInitializersToConstants(self):
        self.convertInitializersToConstants(
            one.name for one in self._model.graph.initializer if one.data_type in _FIXED)

    def _convert(self, old, new, kind, clip=False):
        """Give another type to all values, weights and constants of one type."""
        import onnx

        graph = self._model.graph
        tensors = list(graph.initializer)
        for node in graph.node:
            tensors += [one.t for one in node.attribute
                        if one.type == onnx.AttributeProto.TENSOR]
        for one in tensors:
            if one.data_type == old:
                array = onnx.numpy_helper.to_array(one)
                if clip:
                    array = array.clip(np.iinfo(kind).min, np.iinfo(kind).max)
                elif np.issubdtype(kind, np.integer) and (array.astype(kind) != array).any():
                    raise popart_exception(f"{one.name} holds numbers that {kind.__name__} cannot")
                one.CopyFrom(onnx.numpy_helper.from_array(array.astype(kind), one.name))
        for value in [*graph.input, *graph.output, *graph.value_info]:
            if value.type.tensor_type.elem_type == old:
                value.type.tensor_type.elem_type = new
