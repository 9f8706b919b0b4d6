"""Small ONNX models made by hand."""

import numpy
from onnx import TensorProto, helper, numpy_helper

FLOAT, UINT8, INT64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64


def node(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def constant(name, value):
    return helper.make_node("Constant", [], [name],
                            value=numpy_helper.from_array(numpy.asarray(value), name))


def model(nodes, inputs, outputs, weights=(), opset=11, ir_version=6, domains=()):
    """Return a model; `inputs` and `outputs` are (name, type, shape), `weights` a mapping."""
    graph = helper.make_graph(
        list(nodes), "graph", [helper.make_tensor_value_info(*entry) for entry in inputs],
        [helper.make_tensor_value_info(*entry) for entry in outputs],
        [numpy_helper.from_array(numpy.asarray(value), name)
         for name, value in dict(weights).items()])
    opsets = [helper.make_opsetid("", opset),
              *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def classifier(images=("images", FLOAT, ["batch", 3, 8, 8]), logits=("logits", FLOAT, ["batch", 5]),
               opset=11, cast=False, **more):
    """Return a linear classifier of the means of the channels."""
    nodes = [node("GlobalAveragePool", "floats" if cast else images[0], "mean"),
             node("Flatten", "mean", "flat"), node("Gemm", "flat weight bias", logits[0])]
    if cast:
        nodes.insert(0, node("Cast", images[0], "floats", to=FLOAT))
    generator = numpy.random.default_rng(0)
    weights = {"weight": generator.standard_normal((3, 5)).astype(numpy.float32),
               "bias": generator.standard_normal(5).astype(numpy.float32)}
    return model(nodes, [images], [logits], weights, opset, **more)


def outputs(proto, **inputs):
    """Return what ONNX Runtime computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(proto.SerializeToString(), options,
                                        providers=["CPUExecutionProvider"]).run(None, inputs)
