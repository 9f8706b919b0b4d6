"""Builds and changes ONNX graphs; the operators are those that the contract lists."""

import re
from contextlib import contextmanager

from popart import _enums, _models, _shapes
from popart._contract import CONTRACT, bound, overloaded, parameters
from popart._errors import popart_exception
from popart._flow import InputSettings
from popart._tensors import TensorInfo, info_of, onnx_type

_OPS = CONTRACT["builder_ops"]
_LOGICAL = {"logical_and": "And", "logical_or": "Or", "logical_not": "Not", "logical_xor": "Xor"}
_OWN = {"nllloss": ("Nll", 1), "identityloss": ("IdentityLoss", 1), "l1loss": ("L1", 1),
        "groupnormalization": ("GroupNormalization", 3), "swish": ("Swish", 1),
        "gelu": ("Gelu", 1), "geluerf": ("GeluErf", 1), "scale": ("Scale", 1),
        "detach": ("Detach", 1)}
"""Types and numbers of outputs of the operators of ai.graphcore that the double has."""

IPU, STAGE = "__ipu_number", "__pipeline_stage"
RECOMPUTE, MEMORY = "__recompute_output_in_backward_pass", "__available_memory"
PARTIALS = "__partials_type"
TILES, EXCHANGE = "__tile_set", "__exchange_strategy"
"""Keys of a model's metadata, each followed by a slash and the name of an input."""


class Opset:
    def __init__(self, builder, version):
        self._builder, self.version = builder, int(version)


class AiOnnx(Opset):
    def __getattr__(self, name):
        older = _OPS["older_opsets_differ"].get(str(self.version), {})
        known = {**_OPS["aiOnnxOpset11"], **older.get("other_signature", {})}
        if name.startswith("_") or name not in known or name in older.get("absent", ()):
            raise AttributeError(f"'AiOnnxOpset{self.version}' object has no attribute '{name}'")
        return lambda *args, **kwargs: self._builder._add_onnx(
            self.version, name, parameters(known[name]), args, kwargs)

    def __str__(self):
        return f"AiOnnx{self.version}"


class AiOnnx6(AiOnnx):
    pass


class AiOnnx7(AiOnnx6):
    pass


class AiOnnx8(AiOnnx7):
    pass


class AiOnnx9(AiOnnx8):
    pass


class AiOnnx10(AiOnnx9):
    pass


class AiOnnx11(AiOnnx10):
    pass


class AiGraphcore(Opset):
    def __getattr__(self, name):
        if name.startswith("_") or name not in _OPS["aiGraphcore"]:
            raise AttributeError(f"'AiGraphcoreOpset1' object has no attribute '{name}'")
        if name not in _OWN:
            raise NotImplementedError(f"the double has no aiGraphcore.{name}")
        return lambda *args, **kwargs: self._builder._add_own(
            name, parameters(_OPS["aiGraphcore"][name]), args, kwargs)


class AiGraphcoreOpset1(AiGraphcore):
    pass


_OPSETS = {6: AiOnnx6, 7: AiOnnx7, 8: AiOnnx8, 9: AiOnnx9, 10: AiOnnx10, 11: AiOnnx11}


class Builder:
    def __init__(self, modelProtoOrFilename=None, opsets=None, builderCore=None):
        if builderCore is not None:
            raise NotImplementedError("the double has no subgraphs")
        import onnx

        self._chosen = self._own = None
        if modelProtoOrFilename is None:
            self._model = onnx.ModelProto(ir_version=4)
            self._model.graph.name = "BuilderGraph"
        else:
            self._model = _models.read(modelProtoOrFilename)
            self._own = _models.opset(self._model, _models.DOMAIN) or None
        if opsets is not None:
            self._choose(opsets["ai.onnx"])
        self._context = []
        self.aiGraphcore = AiGraphcore(self, 1)
        self.aiGraphcoreOpset1 = AiGraphcoreOpset1(self, 1)

    def __getattr__(self, name):
        if not re.fullmatch(r"aiOnnx(Opset(6|7|8|9|10|11))?", name):
            raise AttributeError(f"'_BuilderCore' object has no attribute '{name}'")
        version = int(name[len("aiOnnxOpset"):]) if name != "aiOnnx" else self._chosen or 10
        if self._chosen is None:
            self._choose(version)
        if self._chosen != version:
            raise RuntimeError(f"Invalid opset '{name}' selected. Opset for domain ai.onnx already "
                               f"defined as {self._chosen}")
        return _OPSETS[version](self, version)

    def _choose(self, version):
        if version not in _OPSETS:
            raise KeyError(f"aiOnnxOpset{version}")
        self._chosen = version

    # -- tensors -----------------------------------------------------------------------------

    def addInputTensor(self, *args, **kwargs):
        if args and not isinstance(args[0], TensorInfo) and len(args) > 1:
            args = (TensorInfo(args[0], args[1]), *args[2:])
        elif "dataType" in kwargs:
            args = (TensorInfo(kwargs.pop("dataType"), kwargs.pop("shape")), *args)
        names = ["tensorInfo", "settings", "debugContext"]
        if len(args) > 1 and isinstance(args[1], str):
            names.remove("settings")
        given = bound("addInputTensor", dict.fromkeys(names, ""), args, kwargs)
        info, settings = given["tensorInfo"], given.get("settings", InputSettings())
        if not isinstance(info, TensorInfo) or not isinstance(settings, InputSettings):
            raise TypeError("addInputTensor(): incompatible function arguments")
        import onnx

        name = self._next(given.get("debugContext") or "input")
        self._model.graph.input.append(
            onnx.helper.make_tensor_value_info(name, onnx_type(info), info.shape()))
        for key, value in ((TILES, settings.tileSet()), (EXCHANGE, settings.exchangeStrategy())):
            self._model.metadata_props.add(key=f"{key}/{name}", value=str(value.value))
        return name

    def addInitializedInputTensor(self, initVal, debugContext=""):
        import onnx

        name = self._next(debugContext or "init_input")
        self._model.graph.initializer.append(onnx.numpy_helper.from_array(initVal, name))
        self._model.graph.input.append(onnx.helper.make_tensor_value_info(
            name, onnx_type(TensorInfo(initVal)), initVal.shape))
        return name

    def addOutputTensor(self, outputName):
        self._known(outputName)
        import onnx

        info = self._info(outputName)
        self._model.graph.output.append(onnx.helper.make_tensor_value_info(
            outputName, onnx_type(info), info.shape()))

    def getInputTensorIds(self):
        return [value.name for value in self._model.graph.input]

    def getOutputTensorIds(self):
        return [value.name for value in self._model.graph.output]

    def getTrainableTensorIds(self):
        return [one.name for one in self._model.graph.initializer]

    def getValueTensorIds(self):
        return [value.name for value in self._model.graph.value_info]

    def getTensorShape(self, id):
        return self._info(id).shape()

    def getTensorDtypeString(self, id):
        return self._info(id).data_type_lcase()

    def isInitializer(self, id):
        return any(one.name == id for one in self._model.graph.initializer)

    def getModelProto(self):
        return self._model.SerializeToString()

    def saveModelProto(self, filename):
        with open(filename, "wb") as file:
            file.write(self.getModelProto())

    def setGraphName(self, name):
        self._model.graph.name = name

    # -- attributes of nodes -----------------------------------------------------------------

    def addNodeAttribute(self, attributeName, attributeValue, nodeOutputNames):
        self._checked("addNodeAttribute", attributeName, attributeValue, nodeOutputNames)
        self._mark(attributeName, attributeValue, nodeOutputNames)

    def nodeHasAttribute(self, attributeName, nodeOutputNames):
        self._checked("nodeHasAttribute", attributeName, nodeOutputNames)
        return self._has(attributeName, nodeOutputNames)

    def removeNodeAttribute(self, attributeName, nodeOutputNames):
        self._checked("removeNodeAttribute", attributeName, nodeOutputNames)
        node = self._node(nodeOutputNames)
        kept = [one for one in node.attribute if one.name != attributeName]
        if len(kept) == len(node.attribute):
            raise popart_exception(f"Cannot remove attribute {attributeName} as it does not exist.")
        del node.attribute[:]
        node.attribute.extend(kept)

    def getAllNodeAttributeNames(self, nodeOutputNames):
        self._checked("getAllNodeAttributeNames", nodeOutputNames)
        return [one.name for one in self._node(nodeOutputNames).attribute]

    def getInt64NodeAttribute(self, attributeName, nodeOutputNames):
        self._checked("getInt64NodeAttribute", attributeName, nodeOutputNames)
        return self._attribute(attributeName, nodeOutputNames, int)

    def getFloatNodeAttribute(self, attributeName, nodeOutputNames):
        self._checked("getFloatNodeAttribute", attributeName, nodeOutputNames)
        return self._attribute(attributeName, nodeOutputNames, float)

    def getStringNodeAttribute(self, attributeName, nodeOutputNames):
        self._checked("getStringNodeAttribute", attributeName, nodeOutputNames)
        return self._attribute(attributeName, nodeOutputNames, bytes).decode()

    def virtualGraph(self, *args, **kwargs):
        return self._placed("virtualGraph", IPU, args, kwargs)

    def pipelineStage(self, *args, **kwargs):
        return self._placed("pipelineStage", STAGE, args, kwargs)

    def recomputeOutput(self, *args, **kwargs):
        return self._placed("recomputeOutput", RECOMPUTE, args, kwargs)

    def recomputeOutputInBackwardPass(self, *args, **kwargs):
        return self._placed("recomputeOutputInBackwardPass", RECOMPUTE, args, kwargs)

    def checkpointOutput(self, nodeOutputNames):
        self._checked("checkpointOutput", nodeOutputNames)
        names = [self._next(f"CheckpointOutput:{place}") for place in range(len(nodeOutputNames))]
        self._append("CheckpointOutput", _models.DOMAIN, nodeOutputNames, names, {})
        return names

    def getVirtualGraph(self, nodeOutputNames):
        self._checked("getVirtualGraph", nodeOutputNames)
        return self._attribute(IPU, nodeOutputNames, int)

    def setPartialsType(self, nodeOutputName, partialsType):
        self._checked("setPartialsType", nodeOutputName, partialsType)
        kind = self._node(nodeOutputName).op_type
        if kind not in ("Conv", "MatMul"):
            raise popart_exception("Builder::setPartialsType should only be called on operators: "
                                   f"Conv, MatMul; but was given: {kind}")
        self._mark(PARTIALS, partialsType, {nodeOutputName})

    def getPartialsType(self, nodeOutputName):
        self._checked("getPartialsType", nodeOutputName)
        return (self._attribute(PARTIALS, {nodeOutputName}, bytes).decode()
                if self._has(PARTIALS, {nodeOutputName}) else "FLOAT")

    def setAvailableMemoryProportion(self, *args, **kwargs):
        names, proportion = overloaded("setAvailableMemoryProportion", _enums, args,
                                       kwargs).values()
        if not 0 < proportion <= 1:
            raise popart_exception("availableMemoryProportion must be in (0,1]")
        if self._has(MEMORY, names):
            self.removeNodeAttribute(MEMORY, names)
        self._mark(MEMORY, float(proportion), names)

    # -- internals ---------------------------------------------------------------------------

    @staticmethod
    def _checked(name, *args):
        overloaded(name, _enums, args, {})

    def _mark(self, name, value, outputs):
        import onnx

        node = self._node(outputs)
        if any(one.name == name for one in node.attribute):
            raise popart_exception(f"Node already has attribute {name}.")
        node.attribute.append(onnx.helper.make_attribute(name, value))

    def _has(self, name, outputs):
        return any(one.name == name for one in self._node(outputs).attribute)

    def _placed(self, name, attribute, args, kwargs):
        """Set an attribute of a node, or of all that are added within a context."""
        given = overloaded(name, _enums, args, kwargs)
        value = given.pop("value")
        value = getattr(value, "value", value)
        if not given:
            return self._within(attribute, value)
        (names,) = given.values()
        self._mark(attribute, value, names)
        return None

    @contextmanager
    def _within(self, attribute, value):
        self._context.append((attribute, value))
        try:
            yield
        finally:
            self._context.pop()

    def _attribute(self, name, names, kind):
        import onnx

        for one in self._node(names).attribute:
            if one.name == name:
                value = onnx.helper.get_attribute_value(one)
                if not isinstance(value, kind):
                    raise popart_exception(f"Attribute {name} is not of this type.")
                return value
        raise popart_exception(f"Node does not have an attribute {name}.")

    def _node(self, names):
        wanted = {names} if isinstance(names, str) else set(names)
        for node in self._model.graph.node:  # empty names of outputs are counted
            if len(node.output) == len(wanted) and set(node.output) == wanted:
                return node
        raise popart_exception(f"Could not find a node with outputs {', '.join(sorted(wanted))}. "
                               "Must specify all outputs of a node")

    def _ids(self):
        graph = self._model.graph
        return {*(value.name for value in graph.input), *(one.name for one in graph.initializer),
                *(name for node in graph.node for name in node.output)}

    def _known(self, name):
        if name not in self._ids():
            raise popart_exception(f"Unknown tensor '{name}'")

    def _info(self, name):
        graph = self._model.graph
        self._known(name)
        for value in [*graph.value_info, *graph.input, *graph.output]:
            if value.name == name and info_of(value) is not None:
                return info_of(value)
        found = _shapes.infos(self._model, [name]).get(name)
        if found is None:
            raise popart_exception(f"{name} is not an known tensor.")
        return found

    def _next(self, base):
        taken, count, name = self._ids(), 0, base
        while name in taken:
            count += 1
            name = f"{base}/{count}"
        return name

    def _add_onnx(self, version, name, wanted, args, kwargs):
        import onnx

        have = _models.opset(self._model)
        if have and have != version:
            raise popart_exception(f"Invalid opset {version} used to add an operation. Opset for "
                                   f"domain ai.onnx already defined as {have}")
        given = bound(name, wanted, args, kwargs)
        kind = _LOGICAL.get(name) or next(
            (one for one in {schema.name for schema in onnx.defs.get_all_schemas()}
             if one.lower() == name), None)
        if kind is None:
            raise NotImplementedError(f"the double has no aiOnnx.{name}")
        if not have:
            self._require("", version)
        schema = onnx.defs.get_schema(kind, version)
        inputs = given.pop("args", [])
        if not schema.min_input <= len(inputs) <= schema.max_input:
            raise popart_exception(
                f"{kind} has invalid number of inputs {len(inputs)}. Must be between "
                f"{schema.min_input}..{schema.max_input}")
        several = "num_outputs" in given or schema.min_output > 1
        outputs = self._outputs(kind, given.pop("num_outputs", schema.min_output))
        if kind == "Cast":  # it takes the type's name
            given["to"] = onnx.TensorProto.DataType.Value(given["to"])
        if kind == "Constant":
            given = {"value": onnx.numpy_helper.from_array(given["value"])}
        self._append(kind, "", inputs, outputs, given)
        return outputs if several else outputs[0]

    def _add_own(self, name, wanted, args, kwargs):
        given = bound(name, wanted, args, kwargs)
        kind, count = _OWN[name]
        if name.endswith("loss"):
            reduction = given.get("reduction", _enums.ReductionType.Mean)
            if not isinstance(reduction, _enums.ReductionType):
                raise TypeError(f"{name}(): incompatible function arguments")
            no = _enums.ReductionType.NoReduction
            given["reduction"] = "None" if reduction is no else reduction.name
        if given.get("ignoreIndex", 0) is None:
            del given["ignoreIndex"]
        if "inputIsLogProbability" in given:
            given["inputIsLogProbability"] = int(given["inputIsLogProbability"])
        if self._own is None:
            self._require(_models.DOMAIN, 1)
            self._own = 1
        outputs = self._outputs(kind, count)
        self._append(kind, _models.DOMAIN, given.pop("args"), outputs, given)
        return outputs if count > 1 else outputs[0]

    def _require(self, domain, version):
        import onnx

        self._model.opset_import.append(onnx.helper.make_opsetid(domain, version))

    def _outputs(self, kind, count):
        return [self._next(f"{kind}:{place}") for place in range(count)]

    def _append(self, kind, domain, inputs, outputs, attributes):
        import onnx

        for name in inputs:
            if name:
                self._known(name)
        label = attributes.pop("debugContext", "")
        node = onnx.helper.make_node(kind, inputs, outputs, name=label, domain=domain,
                                     **attributes)
        for attribute, value in self._context:
            node.attribute.append(onnx.helper.make_attribute(attribute, value))
        self._model.graph.node.append(node)
