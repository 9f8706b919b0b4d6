"""Translates operators with weights: convolutions, matrix products and normalisations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy

from ipucnn.plugins.backends.ncnn.elementwise import fused_activation, scaled
from ipucnn.plugins.backends.ncnn.graph_translation import Translation, Value
from ipucnn.plugins.backends.ncnn.graph_view import Node
from ipucnn.plugins.backends.ncnn.param_file import Parameter

if TYPE_CHECKING:
    Array = numpy.ndarray[Any, Any]


_OUTPUT_SHAPE = 30
"""The number of the parameter of a layer's output: dimensions, width, height, channels."""


def padding(node: Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int],
            ) -> List[int]:
    """Return the padding of a convolution or pooling: above, left, below, right.

    Args:
        node: the operator.
        sizes: height and width of its input.
        kernel: height and width of the window, with dilation.
        strides: vertical and horizontal.
    """
    mode = node.attributes.get("auto_pad", b"NOTSET").decode()
    if mode == "NOTSET":
        return list(node.attributes.get("pads", (0, 0, 0, 0)))
    begins, ends = [], []
    for size, window, stride in zip(sizes, kernel, strides):
        missing = 0 if mode == "VALID" else max(0, ((size - 1) // stride) * stride + window - size)
        least = missing // 2
        begins.append(missing - least if mode == "SAME_LOWER" else least)
        ends.append(missing - begins[-1])
    return begins + ends


def _convolution(t: Translation, node: Node) -> None:
    value, weight = t.value(node), t.weights(node, 1)
    bias = t.weights(node, 2) if node.input(2) else None
    if len(value.shape) != 3:
        node.refused(f"has an input of shape {value.shape}")
    top, left, below, right = value.margins
    kernel, groups = weight.shape[2:], node.attributes.get("group", 1)
    strides = node.attributes.get("strides", (1, 1))
    dilations = node.attributes.get("dilations", (1, 1))
    sizes = value.shape[1] + top + below, value.shape[2] + left + right
    extent = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations)]
    pads = [first + second for first, second in zip(
        value.margins, padding(node, sizes, extent, strides))]
    if kernel == (1, 1) and groups == 1 and value.shape[1:] == (1, 1) and not any(pads):
        _dense(t, node, value, weight.reshape(len(weight), -1), bias)
        return
    name, parameters = fused_activation(t, node)
    parameters.update({
        0: len(weight), 1: kernel[1], 11: kernel[0], 2: dilations[1], 12: dilations[0],
        3: strides[1], 13: strides[0], 14: pads[0], 4: pads[1], 16: pads[2], 15: pads[3],
        5: int(bias is not None), 6: weight.size})
    if groups != 1:
        parameters[7] = groups
    shape = t.shape(node, name)
    # ncnn selects the size of Winograd's tiles when it loads the weights, by this optional shape:
    # small images with many channels are faster with small ones
    parameters[_OUTPUT_SHAPE] = [len(shape), *reversed(shape)]
    t.put(node, name, t.added(
        "Convolution" if groups == 1 else "ConvolutionDepthWise",
        [t.stored_as(node, value, value.shape)], shape, parameters, _with_bias(weight, bias)))


def _dense(t: Translation, node: Node, value: Value, weight: Array,
           bias: Optional[Array]) -> None:
    """Add a matrix product with a matrix of a row per output."""
    name, parameters = fused_activation(t, node)
    parameters.update({0: len(weight), 1: int(bias is not None), 2: weight.size})
    made = t.added("InnerProduct", [t.stored_as(node, value, (weight.shape[1],))],
                   (len(weight),), parameters, _with_bias(weight, bias))
    t.put(node, name, Value(made.blob, t.shape(node, name), made.stored))


def _with_bias(weight: Array, bias: Optional[Array]) -> List[Tuple[Array, bool]]:
    return [(weight, True), *([] if bias is None else [(bias, False)])]


def _gemm(t: Translation, node: Node) -> None:
    value, weight = t.value(node), t.weights(node, 1)
    if node.attributes.get("transA", 0) or len(value.shape) != 1:
        node.refused("has a transposed first input")
    if not node.attributes.get("transB", 0):
        weight = weight.T
    weight = weight * numpy.float32(node.attributes.get("alpha", 1.0))
    bias = None
    if node.input(2):
        bias = t.per_image(node, t.weights(node, 2), 1) * numpy.float32(
            node.attributes.get("beta", 1.0))
        bias = numpy.broadcast_to(bias, (len(weight),))
    _dense(t, node, value, weight, bias)


def _matrix_product(t: Translation, node: Node) -> None:
    value, weight = t.value(node), t.weights(node, 1)
    if len(value.shape) != 1 or weight.ndim != 2:
        node.refused("is no product of a vector and a matrix for each image")
    _dense(t, node, value, weight.T, None)


def _batch_norm(t: Translation, node: Node) -> None:
    if node.attributes.get("training_mode", 0) or not node.attributes.get("spatial", 1):
        node.refused("normalises with the statistics of its input")
    gamma, beta, mean, variance = (
        t.weights(node, place).astype(numpy.float64) for place in range(1, 5))
    scale = gamma / numpy.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    scaled(t, node, t.value(node), scale, beta - mean * scale)


def _instance_norm(t: Translation, node: Node) -> None:
    value, scale, bias = t.value(node), t.weights(node, 1), t.weights(node, 2)
    channels = len(scale)
    stored = value.stored if len(value.stored) == 3 and value.stored[0] == channels else (
        channels, 1, int(numpy.prod(value.shape[1:])))
    made = t.added("InstanceNorm", [t.stored_as(node, value, stored)], stored,
                   {0: channels, 1: node.attributes.get("epsilon", 1e-5), 2: 1},
                   [(scale, False), (bias, False)])
    t.put(node, node.output, Value(made.blob, value.shape, stored))


def group_norm(t: Translation, node: Node) -> bool:
    """Translate a Reshape, an InstanceNormalization of groups and a Reshape back as one layer.

    Args:
        t: the translation.
        node: the first Reshape.

    Returns:
        Whether the operators are of this form.
    """
    value, groups = t.value(node), t.shape(node, node.output)
    norm = t.view.only_reader(node.output)
    back = norm and t.view.only_reader(norm.output)
    if norm is None or back is None or len(value.shape) != 3 or len(groups) != 2 \
            or (norm.kind, back.kind) != ("InstanceNormalization", "Reshape") \
            or t.shape(back, back.output) != value.shape or value.shape[0] % groups[0]:
        return False
    each = value.shape[0] // groups[0]
    scale, bias = (numpy.repeat(t.weights(norm, place), each) for place in (1, 2))
    parameters: Dict[int, Parameter] = {0: groups[0], 1: value.shape[0],
                                        2: norm.attributes.get("epsilon", 1e-5), 3: 1}
    t.put(back, back.output, t.added(
        "GroupNorm", [t.stored_as(node, value, value.shape)], value.shape, parameters,
        [(scale, False), (bias, False)]))
    t.done.update((norm, back))
    return True


TRANSLATORS: Dict[str, Callable[[Translation, Node], None]] = {
    "BatchNormalization": _batch_norm, "Conv": _convolution, "Gemm": _gemm,
    "InstanceNormalization": _instance_norm, "MatMul": _matrix_product}
