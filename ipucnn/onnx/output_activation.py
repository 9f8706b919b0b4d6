"""Whether the outputs of an ONNX graph are logits or probabilities, by its last operators."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from ipucnn.core.errors import DataError
from ipucnn.models.card import LOGITS, PROBABILITIES
from ipucnn.onnx.target import opset_of

if TYPE_CHECKING:
    import onnx

log = logging.getLogger("ipucnn.graphs")

_SOFTMAX = ("Softmax", "QLinearSoftmax")
_SIGMOID = ("Sigmoid", "QLinearSigmoid", "HardSigmoid")

_RESHAPING = {"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}

_PASSED = ("Cast", "Clip", "DequantizeLinear", "Dropout", "Gather", "GlobalAveragePool",
           "Identity", "LpNormalization", "Pow", "QuantizeLinear", "ReduceMax", "ReduceMean",
           "ReduceMin", "ReduceSum", "Round", "Slice", "Sqrt", *sorted(_RESHAPING))
"""Operators after the activation of which the first input is the data."""

_DECISIONS = {"And", "ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Hardmax", "Less",
              "LessOrEqual", "Not", "OneHot", "Or", "Sign", "TopK"}
"""Operators whose results are class numbers, 0 and 1, or sorted."""

_JOINING = {"Concat", "Div", "LpNormalization", "ReduceSum"}
"""Operators whose outputs depend on each other: `1 - p` beside `p`, or shares of a sum."""

_COMBINING = ("Add", "Concat", "Div", "Max", "Mean", "Min", "Mul", "Sub", "Sum", "Where")
"""Operators that combine probabilities, such as those of several networks, or change them by
constants. Their result is still meant as probabilities."""


def activation_of(proto: onnx.ModelProto, path: str) -> Tuple[str, bool]:
    """Return the kind of outputs, from the last operators, and whether each is that of a sigmoid.

    Raises:
        DataError: the last operator is a softmax over the images of a batch or over one value, or
            only some branches end in a softmax or a sigmoid.
    """
    model = _inlined(proto)
    ends, passed = _ends(model, path)
    kinds = _kinds(ends)
    if any(_over_one_value(node, model) for _, node in ends):
        raise DataError(f"the Softmax of '{path}' is computed over an axis of one value, so that "
                        "each of its results is 1",
                        "export it again with a Softmax over the axis of the classes")
    if kinds and kinds <= _DECISIONS:
        raise DataError(f"'{path}' ends in {', '.join(sorted(kinds))}: its outputs are decisions, "
                        "and no score for each class", "export the network without it")
    if not _are_probabilities(kinds):
        return LOGITS, False
    if opset_of(proto) >= 13 and not passed & _RESHAPING and any(
            kind in _SOFTMAX and _axis(node) == 0 for kind, node in ends):
        raise DataError(f"the Softmax of '{path}' is computed over the images of a batch (axis 0), "
                        "and not over the classes", "export it again with a Softmax over axis 1")
    return PROBABILITIES, kinds <= set(_SIGMOID) and not passed & _JOINING


def ends_in_softmax(proto: onnx.ModelProto, path: str) -> bool:
    """Return whether an output is derived from a softmax.

    Raises:
        DataError: see `activation_of`.
    """
    return bool({kind for kind, _ in _ends(_inlined(proto), path)[0]} & set(_SOFTMAX))


def _kinds(ends: List[Tuple[str, onnx.NodeProto]]) -> Set[str]:
    """Return the types of the operators that outputs are derived from; masks do not count."""
    kinds = {kind for kind, _ in ends}
    return kinds - _DECISIONS or kinds


def _are_probabilities(kinds: Set[str]) -> bool:
    return bool(kinds) and kinds <= {*_SOFTMAX, *_SIGMOID}


Ends = Tuple[List[Tuple[str, "onnx.NodeProto"]], Set[str]]


def _ends(model: onnx.ModelProto, path: str) -> Ends:
    """Return the operators from which the output is derived, and those that derive it.

    The latter are the types of the operators in `_PASSED` and `_COMBINING`; an average of the
    Softmax of two networks has the ends Softmax and Softmax. The operators of a softmax in parts
    are one Softmax. The ends of a branch or a loop body are those of its results.

    Raises:
        DataError: some branches end in probabilities, and others do not.
    """
    return _ends_of(model.graph, model.graph.output[0].name, {}, path)


def _ends_of(graph: onnx.GraphProto, output: str, outer: Mapping[str, onnx.NodeProto],
             path: str) -> Ends:
    makers = {**outer, **{made: node for node in graph.node for made in node.output}}
    waiting = [output]
    seen, passed = set(waiting), set()
    ends: List[Tuple[str, onnx.NodeProto]] = []
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        if node is None or node.op_type == "Constant":  # a weight
            continue
        bodies = list(_bodies(node, name))
        if bodies:
            inner = [_ends_of(body, result, makers, path) for body, result in bodies]
            if len({_are_probabilities(_kinds(found)) for found, _ in inner}) > 1:
                raise DataError(f"some branches of '{path}' end in probabilities, and others do "
                                "not", "export it again without the condition")
            for found, through in inner:
                ends += found
                passed |= through
        elif _is_softmax(node, makers):
            ends.append(("Softmax", makers[node.input[0]] if node.op_type == "Exp" else node))
        elif node.op_type not in (*_PASSED, *_COMBINING):
            ends.append((node.op_type, node))
        else:
            passed.add(node.op_type)
            # the first input of Where is a condition
            inputs = node.input[:1] if node.op_type in _PASSED else node.input[
                node.op_type == "Where":]
            waiting += [name for name in inputs if name not in seen]
            seen.update(inputs)
    return ends, passed


def _bodies(node: onnx.NodeProto, output: str) -> Iterator[Tuple[onnx.GraphProto, str]]:
    """Yield the branches of a condition, or the body of a loop, with the result for an output."""
    if node.op_type not in ("If", "Loop", "Scan"):
        return
    # the first result of the body of a Loop is whether it continues
    place = list(node.output).index(output) + (node.op_type == "Loop")
    for attribute in node.attribute:
        if attribute.HasField("g") and place < len(attribute.g.output):
            yield attribute.g, attribute.g.output[place].name


def _over_one_value(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Return whether an operator is a softmax over one value, which is always 1."""
    if node.op_type not in (*_SOFTMAX, "LogSoftmax"):
        return False
    shape = _shapes(model).get(node.input[0])
    axis, opset = _axis(node), opset_of(model)
    if shape is None:
        return False
    if opset >= 13:
        axis = -1 if axis is None else axis
        return -len(shape) <= axis < len(shape) and shape[axis] == 1
    # older operator sets take the axis and all that follow as one
    values = shape[1 if axis is None else axis:]
    return bool(values) and all(size == 1 for size in values)


def _shapes(model: onnx.ModelProto) -> Mapping[str, Sequence[Optional[int]]]:
    """Return the shapes of the values of a model as far as they can be inferred."""
    from ipucnn.onnx.simplify import inferred_shapes

    try:
        return inferred_shapes(model)
    except Exception as error:  # of onnx, for a model that its checker accepts
        log.debug("shapes are not inferred: %s", error)
        return {}


def _inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose functions are replaced by their operators."""
    if not proto.functions:
        return proto
    from onnx.inliner import inline_local_functions

    inlined: onnx.ModelProto = inline_local_functions(proto)
    return inlined


def _axis(node: onnx.NodeProto) -> Optional[int]:
    return next((entry.i for entry in node.attribute if entry.name == "axis"), None)


def _is_softmax(last: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto]) -> bool:
    """Return whether an operator is the last one of a softmax of several operators.

    These are exponentials divided by their sum, multiplied by its reciprocal or normalised to a
    sum of 1, or exponentials of a LogSoftmax.
    """
    before = [makers.get(name) for name in last.input]
    types = ["" if node is None else node.op_type for node in before]
    if last.op_type == "Exp":
        return types == ["LogSoftmax"]
    if last.op_type == "LpNormalization":
        return types == ["Exp"] and any(entry.name == "p" and entry.i == 1
                                        for entry in last.attribute)
    if last.op_type not in ("Div", "Mul") or types[0] != "Exp":
        return False
    above, below = before
    if last.op_type == "Mul" and types[1] == "Reciprocal" and below is not None:
        below = makers.get(below.input[0])
    return above is not None and below is not None and below.op_type == "ReduceSum" \
        and below.input[0] == above.output[0]
