"""Reading ONNX models with the checks of PopART, and the operators in them."""

import os

from popart._contract import CONTRACT
from popart._errors import popart_exception
from popart._tensors import info_of

DOMAIN = "ai.graphcore"
_OLDEST, _NEWEST = 6, 11


def read(source):
    """Return the model in a file or in bytes, or refuse it as PopART does."""
    import onnx

    if isinstance(source, str):
        if not os.path.isfile(source):
            raise popart_exception(f"Failed to parse ModelProto from string {source[:40]!r}: "
                                   "there is no such file either")
        with open(source, "rb") as file:
            source = file.read()
    elif not isinstance(source, bytes):
        raise TypeError("modelProtoOrFilename: incompatible function arguments")
    if len(source) >= 2**31:
        raise popart_exception("Failed to load a ModelProto of more than 2 GB")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(source)
    except Exception as error:
        raise popart_exception("Failed to parse ModelProto from string") from error
    if not model.ir_version or not model.graph.name:
        raise popart_exception("Failed to parse ModelProto: it has no graph")
    check(model)
    return model


def misread(model):
    """Return a copy of a model with the values that PopART reads in it.

    It takes the memory of a list of wider numbers for that of a tensor.
    """
    import numpy as np
    from onnx import numpy_helper

    copied = type(model)()
    copied.CopyFrom(model)
    for one in [*copied.graph.initializer, *(
            own.t for node in copied.graph.node for own in node.attribute if own.HasField("t"))]:
        wider = next((np.array(list(values), kind) for values, kind in (
            (one.int32_data, np.int32), (one.uint64_data, np.uint64)) if len(values)), None)
        if not one.HasField("raw_data") and wider is not None:
            kind = numpy_helper.to_array(one).dtype
            taken = np.frombuffer(wider.tobytes(), kind)[:int(np.prod(one.dims, dtype=np.int64))]
            one.CopyFrom(numpy_helper.from_array(taken.reshape(list(one.dims)), one.name))
    return copied


def check(model):
    import onnx

    if model.ir_version > 6:
        raise RuntimeError(f"Your model ir_version is higher than the checker's: "
                               f"{model.ir_version} > 6.")
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and not _OLDEST <= opset.version <= _NEWEST:
            raise popart_exception(
                f"Encountered ONNX opset version {opset.version}, Maximimum supported opset is "
                f"{_NEWEST}, minimum {_OLDEST} and default 10.")
        if opset.domain not in ("", "ai.onnx", "ai.onnx.ml", DOMAIN):
            raise popart_exception(f"No default opset version defined for domain '{opset.domain}'")
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise RuntimeError(str(error)) from None  # of the library, which PopART does not translate


def opset(model, domain=""):
    names = ("", "ai.onnx") if domain == "" else (domain,)
    return max((one.version for one in model.opset_import if one.domain in names), default=0)


def constants(model, training):
    """Return the ids of tensors whose values are known when a session compiles."""
    known = {one.name for one in model.graph.initializer}
    if training:
        known = {one.name for one in model.graph.initializer if one.data_type not in (1, 10)}
    for node in model.graph.node:
        if node.op_type in ("Constant", "Shape") or (node.input and all(
                name in known for name in node.input if name)):
            known.update(node.output)
    return known


def check_operators(model, strict, training):
    """Refuse operators that PopART's runtime lacks.

    Raises:
        popart_exception: naming the first of them.
    """
    import onnx

    table = CONTRACT["runtime_ops"]
    valued = {one.name for one in model.graph.initializer} | constants(model, training)
    for node in model.graph.node:
        if node.domain == DOMAIN:
            continue
        version = onnx.defs.get_schema(node.op_type, opset(model)).since_version
        if node.op_type not in table["rewritten_or_folded"]:
            have = table["ops"].get(node.op_type, [])
            if version not in have and (strict or not any(one < version for one in have)):
                raise popart_exception(f"No implementation of op ai.onnx.{node.op_type}:{version}")
        attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
        if node.op_type == "MaxPool" and any(d != 1 for d in attributes.get("dilations", [])):
            raise popart_exception(
                f"MaxPool has dilations {attributes['dilations']}. Dilations of value other than 1 "
                "are currently not supported.")
        if node.op_type == "AveragePool" and attributes.get("count_include_pad"):
            raise popart_exception("`count_include_pad` is not supported")
        if node.op_type == "Clip" and version == 11:
            for name in node.input[1:]:
                if name and name not in valued:
                    raise popart_exception(f"Op {node.name}(ai.onnx.Clip:11) currently only "
                                           f"supports constant min/max parameters. Input {name} "
                                           "has no data.")


def shaped(model, shapes):
    """Return a copy of the model whose inputs have the shapes that an `InputShapeInfo` gives."""
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    weights = {one.name for one in model.graph.initializer}
    for value in copied.graph.input:
        if info_of(value) is None and value.name not in weights:
            if not shapes.has(value.name):
                raise popart_exception(f"Input tensor '{value.name}' must be specified in "
                                       "InputShapeInfo, as it has an unknown dimension")
            kind = value.type.tensor_type.elem_type
            value.CopyFrom(onnx.helper.make_tensor_value_info(
                value.name, kind, shapes.get(value.name).shape()))
            del copied.graph.value_info[:]
    return copied


def as_hashed(model):
    """Return what PopART's hash sees of a model: no values, and six decimals of numbers."""
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    tensors = [*copied.graph.initializer, *(
        one.t for node in copied.graph.node for one in node.attribute)]
    for one in tensors:
        for field in ("raw_data", "float_data", "int32_data", "int64_data"):
            one.ClearField(field)
    for node in copied.graph.node:
        for one in node.attribute:
            if one.type == onnx.AttributeProto.FLOAT:
                one.f = round(one.f, 6)
    del copied.metadata_props[:]
    return copied.SerializeToString()
