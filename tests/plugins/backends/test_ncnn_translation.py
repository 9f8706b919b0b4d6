"""Graphs with unusual attributes, as ncnn computes them, compared with ONNX Runtime."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ipucnn.core.errors import UnsupportedNetworkError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.onnx.network import read_network
from ipucnn.plugins.backends.ncnn.options import NcnnOptions

pytest.importorskip("ncnn")
NcnnBackend = pytest.importorskip("ipucnn.plugins.backends.ncnn.engine").NcnnBackend
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "onnx"))
graphs = importlib.import_module("graphs")
FLOAT, constant, node, outputs = graphs.FLOAT, graphs.constant, graphs.node, graphs.outputs

RANDOM = numpy.random.default_rng(0)
SIDE = 9


def random(*shape):
    return RANDOM.standard_normal(shape).astype(numpy.float32)


def network(*nodes, opset=13, channels=4, batch="batch", **weights):
    """Return a classifier of 5 classes around operators that map `x` to `y`.

    Args:
        nodes: operators between the first convolution and the last layers.
        opset: of the graph.
        channels: of `x`, whose images have 9 x 9 pixels.
        batch: number of images.
        weights: of the operators.
    """
    around = [node("Conv", "images stem", "x", pads=[1, 1, 1, 1]), *nodes]
    if not any("logits" in one.output for one in nodes):
        around += [node("Flatten", "y", "flat"), node("MatMul", "flat head", "logits")]
    values = {"stem": random(channels, 3, 3, 3), **weights}
    return graphs.model(around, [("images", FLOAT, [batch, 3, SIDE, SIDE])],
                        [("logits", FLOAT, [batch, 5])], values, opset, ir_version=8)


def with_head(proto, images):
    """Add the weights of the last layer, which depend on the size of `y`."""
    if not any("head" in one.input for one in proto.graph.node):
        return proto
    probe = onnx.ModelProto()
    probe.CopyFrom(proto)
    del probe.graph.node[-1], probe.graph.output[:]
    probe.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, None))
    size = outputs(probe, images=images)[0].shape[1]
    proto.graph.initializer.append(numpy_helper.from_array(random(size, 5), "head"))
    return proto


def session_of(proto, folder, count):
    onnx.save(proto, str(folder / "graph.onnx"))
    plan = ExecutionPlan(micro_batch=count, precision="32.32", normalisation="host",
                         eight_bit_io=False)
    return NcnnBackend(NcnnOptions(requests=1)).inference(
        read_network(folder / "graph.onnx"), plan, SIDE)


PAIR = [node("Relu", "x", "p"), node("Sigmoid", "p", "q")]  # both are read by the next operator

GRAPHS = {
    "asymmetric padding and strides": network(
        node("Conv", "x w", "y", pads=[0, 1, 2, 3], strides=[2, 1]), w=random(6, 4, 3, 2)),
    "dilations": network(
        node("Conv", "x w b", "y", dilations=[2, 3], pads=[2, 3, 2, 3]),
        w=random(8, 4, 3, 3), b=random(8)),
    "groups": network(node("Conv", "x w", "y", group=2), w=random(6, 2, 3, 3)),
    "depthwise with a multiplier": network(
        node("Conv", "x w b", "y", group=4, pads=[1, 0, 0, 1]), w=random(8, 1, 3, 3), b=random(8)),
    **{f"padding {mode}": network(
        node("Conv", "x w", "y", auto_pad=mode, strides=[2, 2]), w=random(8, 4, 4, 3))
       for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")},
    **{f"pooling with {mode}": network(
        node("AveragePool", "x", "y", auto_pad=mode, kernel_shape=[3, 2], strides=[2, 2]))
       for mode in ("SAME_UPPER", "VALID")},
    **{f"Conv and {kind}": network(node("Conv", "x w", "z"), node(kind, "z", "y", **attributes),
                                   w=random(16, 4, 3, 3), opset=14)
       for kind, attributes in (("Relu", {}), ("LeakyRelu", {"alpha": 0.3}), ("Sigmoid", {}),
                                ("HardSwish", {}), ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}))},
    "Conv and Clip with attributes": network(
        node("Conv", "x w", "z"), node("Clip", "z", "y", min=-0.25, max=1.5), opset=9,
        w=random(8, 4, 3, 3)),
    "Clip with weights as bounds": network(
        node("Clip", "x low high", "y"), low=numpy.float32(-0.5), high=numpy.float32(0.75)),
    "Clip without a maximum": network(
        constant("low", numpy.float32(0.25)), node("Clip", "x low", "y")),
    **{kind: network(node(kind, "x", "y", **attributes), channels=channels)
       for kind, attributes, channels in (
           ("Elu", {"alpha": 0.7}, 4), ("Tanh", {}, 5), ("HardSigmoid", {}, 16), ("Neg", {}, 4),
           ("Abs", {}, 3))},
    "a square": network(constant("two", numpy.float32(2)), node("Pow", "x two", "y")),
    "PRelu": network(node("PRelu", "x s", "y"), s=random(4, 1, 1)),
    "swish of a value with other readers": network(
        node("Sigmoid", "x", "s"), node("Mul", "s x", "m"), node("Add", "m x", "y")),
    "HardSwish of two operators": network(
        node("HardSigmoid", "x", "s", alpha=0.25, beta=0.4), node("Mul", "x s", "y")),
    **{f"MaxPool, {how}": network(node("MaxPool", "x", "y", **attributes)) for how, attributes in (
        ("rounded up", {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        ("padded", {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 0, 0, 1]}),
        ("rounded up and padded", {"kernel_shape": [3, 3], "strides": [3, 2], "ceil_mode": 1,
                                   "pads": [1, 1, 1, 1]}))},
    **{f"AveragePool, {name}": network(node("AveragePool", "x", "y", kernel_shape=[3, 3],
                                            strides=[2, 2], **attributes)) for name, attributes in (
        ("padding counted", {"pads": [1, 1, 1, 1], "count_include_pad": 1}),
        ("padding not counted", {"pads": [1, 1, 1, 1]}),
        ("uneven", {"pads": [0, 1, 1, 0]}),
        ("rounded up", {"ceil_mode": 1, "pads": [1, 0, 0, 1]}))},
    "Gemm": network(
        node("GlobalAveragePool", "x", "m"), node("Flatten", "m", "f"),
        node("Gemm", "f w b", "g", alpha=0.5, beta=2.0), node("Relu", "g", "r"),
        node("Gemm", "r v", "logits", transB=1), w=random(4, 7), b=random(1, 7), v=random(5, 7)),
    "squeeze and excitation": network(
        node("GlobalAveragePool", "x", "m"), node("Conv", "m w b", "c"), node("Relu", "c", "r"),
        node("Conv", "r v", "e"), node("Sigmoid", "e", "s"), node("Mul", "s x", "y"),
        w=random(2, 4, 1, 1), b=random(2), v=random(4, 2, 1, 1)),
    **{f"squeeze and excitation with ReduceMean, keepdims={keep}": network(
        node("ReduceMean", "x", "m", axes=[-1, 2], keepdims=keep),
        constant("shape", [0, 4, 1, 1]), node("Reshape", "m shape", "n"),
        node("HardSigmoid", "n", "s"), node("Mul", "x s", "y")) for keep in (0, 1)},
    "one channel": network(
        node("GlobalAveragePool", "x", "m"), node("Sub", "x m", "y"), channels=1),
    **{f"broadcasting of {shape}": network(
        constant("p", random(*shape)), node("Div", "x p", "z"), node("Sub", "p z", "y"))
       for shape in ((4, 1, 1), (1, 4, 1, 1), (1,), (9,), (9, 1), (4, 9, 9), (1, 4, 1, 9))},
    "a difference of operands of which one is broadcast": network(
        node("GlobalMaxPool", "x", "m"), node("Sub", "m x", "y")),
    "sums, products and quotients per channel": network(
        node("Mul", "x a", "z"), node("Add", "b z", "u"), node("Sub", "a u", "v"),
        node("Div", "v b", "y"), a=random(4, 1, 1), b=random(1, 4, 1, 1)),
    "a value with three readers": network(
        *PAIR, node("Mul", "p q", "m"), node("Add", "m p", "n"), node("Concat", "n q p", "y",
                                                                      axis=1)),
    "Concat of rows": network(*PAIR, node("Concat", "p q", "y", axis=-2)),
    "BatchNormalization": network(
        node("Relu", "x", "z"), node("BatchNormalization", "z s b m v", "y", epsilon=0.01),
        s=random(4), b=random(4), m=random(4), v=random(4) ** 2),
    "InstanceNormalization": network(
        node("InstanceNormalization", "x s b", "y", epsilon=0.01), s=random(4), b=random(4)),
    **{f"group norm of {channels} channels": network(
        constant("groups", [0, 2, -1]), node("Reshape", "x groups", "g"),
        node("InstanceNormalization", "g s b", "n"), node("Shape", "x", "before"),
        node("Reshape", "n before", "z"), node("Mul", "z w", "u"), node("Add", "u c", "y"),
        channels=channels, s=random(2), b=random(2), w=random(channels, 1, 1),
        c=random(channels, 1, 1)) for channels in (4, 6, 16)},
    "padding of channels and steps": network(
        constant("starts", [0, 0]), constant("ends", [9, 9]), constant("axes", [2, 3]),
        constant("steps", [2, 3]), node("Slice", "x starts ends axes steps", "z"),
        constant("pads", [0, 1, 0, 0, 0, 3, 0, 0]), node("Pad", "z pads", "y")),
    "Slice of channels": network(
        constant("starts", [-3]), constant("ends", [2**62]), constant("axes", [1]),
        node("Slice", "x starts ends axes", "y")),
    **{f"Pad {mode} before Conv": network(
        constant("pads", [0, 0, 1, 0, 0, 0, 2, 3]), node("Pad", "x pads", "z", mode=mode),
        node("Conv", "z w", "y", pads=[1, 0, 0, 1]), w=random(6, 4, 3, 3))
       for mode in ("constant", "reflect", "edge")},
    "Pad with a value": network(
        constant("pads", [0, 0, 1, 1, 0, 0, 0, 2]), constant("fill", numpy.float32(0.5)),
        node("Pad", "x pads fill", "y")),
    **{f"Transpose {order}": network(node("Transpose", "x", "z", perm=order),
                                     node("Relu", "z", "y"))
       for order in ([0, 2, 3, 1], [0, 3, 1, 2], [0, 1, 3, 2], [0, 2, 1, 3], [0, 3, 2, 1])},
    "shuffled channels": network(
        constant("groups", [0, 2, 4, 9, 9]), node("Reshape", "x groups", "g"),
        node("Transpose", "g", "p", perm=[0, 2, 1, 3, 4]), constant("joined", [0, -1, 9, 9]),
        node("Reshape", "p joined", "z"), node("Conv", "z w", "y"), channels=8,
        w=random(4, 8, 3, 3)),
    "Squeeze and Unsqueeze": network(
        node("GlobalAveragePool", "x", "m"), constant("axes", [2, 3]),
        node("Squeeze", "m axes", "s"), node("Unsqueeze", "s axes", "u"), node("Mul", "x u", "y")),
    **{f"Softmax of opset {opset}": network(
        node("GlobalAveragePool", "x", "m"), node("Flatten", "m", "f"),
        node("Gemm", "f w", "g"), node("Softmax", "g", "logits"), w=random(4, 5), opset=opset)
       for opset in (11, 13)},
    "logits with another reader": network(
        node("GlobalAveragePool", "x", "m"), node("Flatten", "m", "f"), node("Gemm", "f w", "g"),
        node("Neg", "g", "h"), node("Abs", "h", "k"), node("Add", "g k", "logits"),
        node("Neg", "logits", "unused"), w=random(4, 5)),
    "a fixed batch": network(
        constant("shape", [2, 4, 81]), node("Reshape", "x shape", "z"), node("Relu", "z", "y"),
        batch=2),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_gives_the_logits_of_onnx_runtime(name, tmp_path):
    images = random(2, 3, SIDE, SIDE)
    proto = with_head(GRAPHS[name], images)
    expected = outputs(proto, images=images)[0]
    with session_of(proto, tmp_path, 2) as session:
        session.compile()
        logits = session(images)
    assert numpy.abs(logits - expected).max() <= 2e-5 * numpy.abs(expected).max()


REFUSED = {
    "Erf": (network(node("Erf", "x", "e"), node("Erf", "e", "y")), "not translated: Erf"),
    "a cube": (network(constant("three", numpy.float32(3)), node("Pow", "x three", "y")),
               "another exponent than 2"),
    "dilated pooling": (network(node("MaxPool", "x", "y", kernel_shape=[2, 2], dilations=[2, 2])),
                        "MaxPool 'y' has dilations"),
    "a mean over images": (network(node("ReduceMean", "x", "m", axes=[0], keepdims=1),
                                   node("Sub", "x m", "y")), "no mean over height and width"),
    "a permutation of images": (network(
        node("Transpose", "x", "z", perm=[1, 0, 2, 3]), node("Transpose", "z", "y",
                                                             perm=[1, 0, 2, 3])),
        "moves the dimension of the batch"),
    "images joined": (network(constant("shape", [-1, 2, 9, 9]), node("Reshape", "x shape", "z"),
                              node("Relu", "z", "r"), constant("back", [-1, 4, 9, 9]),
                              node("Reshape", "r back", "y")), "keep the images of a batch apart"),
    "statistics of the batch": (network(
        node("BatchNormalization", "x s b m v", "y", training_mode=1), opset=15, s=random(4),
        b=random(4), m=random(4), v=random(4) ** 2), "statistics of its input"),
    "weights that are computed": (network(
        node("GlobalAveragePool", "x", "m"), node("Flatten", "m", "f"), node("Conv", "x f", "y")),
        "Conv 'y' computes its input 1"),
    "float64": (network(node("Cast", "x", "d", to=11), node("Cast", "d", "y", to=1)),
                "another type than float32"),
    "padding counted beyond the image": (network(
        node("AveragePool", "x", "y", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1,
             count_include_pad=1)), "windows outside the image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_computed_exactly_is_refused_with_the_operator(name, tmp_path):
    proto, words = REFUSED[name]
    proto.graph.initializer.append(numpy_helper.from_array(random(4 * SIDE**2, 5), "head"))
    with session_of(proto, tmp_path, 2) as session, \
            pytest.raises(UnsupportedNetworkError, match=words) as caught:
        session.compile()
    assert caught.value.message.startswith("ncnn refuses the network: ")
    assert caught.value.hint
