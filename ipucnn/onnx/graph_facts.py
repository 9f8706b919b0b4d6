"""The description of an ONNX graph as plain types, cached for later runs.

Reading a file of 100 MB and importing the onnx package take longer than loading it in an engine.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
)

from ipucnn.core.bounded_folder import keep_record, kept_record
from ipucnn.core.errors import DataError, IpucnnError
from ipucnn.core.files import cache_dir
from ipucnn.core.names import printable
from ipucnn.data.remote.download import sha256
from ipucnn.models.card import LOGITS, PROBABILITIES
from ipucnn.onnx.target import opset_of
from ipucnn.version import __version__

if TYPE_CHECKING:
    import onnx

log = logging.getLogger("ipucnn.graphs")

_FLOATS = (1, 10, 11, 16)
"""Data types of outputs: FLOAT, FLOAT16, DOUBLE and BFLOAT16 of `onnx.TensorProto`."""

_FLOAT16 = 10

_INPUT_TYPES = {"UINT8": "uint8", "FLOAT": "float32", "FLOAT16": "float16"}
_HOW = "'ipucnn export' writes files of this form"


@dataclass(frozen=True)
class GraphFacts:
    """Properties of the graph of an image classifier.

    Attributes:
        input_name: name of the image input.
        input_type: `uint8`, `float32` or `float16`.
        input_size: height and width of the images.
        batch: images per call; None when any number is accepted.
        num_outputs: values per image.
        outputs: `logits` or `probabilities`; see `ModelCard`.
        sigmoid: whether each output is that of a sigmoid.
        half_weights: some weights are float16.
        tensors: number of weights.
        opset: of the operator set ai.onnx.
        ir_version: of the file format.
        structure: digest of operators and shapes, whatever the values of the weights.
        properties: the metadata of the file.
    """

    input_name: str
    input_type: str
    input_size: int
    batch: Optional[int]
    num_outputs: int
    outputs: str
    sigmoid: bool
    half_weights: bool
    tensors: int
    opset: int
    ir_version: int
    structure: str
    properties: Dict[str, str]

    @classmethod
    def of(cls, model: onnx.ModelProto, path: str) -> GraphFacts:
        """Return the description of a model.

        Args:
            model: the values of its larger weights may be missing.
            path: its file, for messages.

        Raises:
            DataError: its input and output are not those of an image classifier.
        """
        name, kind, shape = _only_input(model, path)
        count = _outputs(model, path)
        outputs, sigmoid = _activation(model, path)
        weights = model.graph.initializer
        half = any(tensor.data_type == _FLOAT16 for tensor in weights)
        return cls(name, kind, shape[2] or 0, shape[0], count, outputs, sigmoid, half,
                   len(weights), opset_of(model), model.ir_version, structure_of(model),
                   {entry.key: entry.value for entry in model.metadata_props})


def structure_of(model: onnx.ModelProto) -> str:
    """Return a digest of operators and shapes, whatever the values of the weights."""
    digest = hashlib.sha256()
    for node in model.graph.node:
        digest.update(node.SerializeToString())
    for tensor in model.graph.initializer:
        digest.update(repr((tensor.name, list(tensor.dims), tensor.data_type)).encode())
    return digest.hexdigest()


def identity(path: Path) -> str:
    """Return an identifier of the content of a file: its hash.

    For a stored graph, this is its name, which is a digest of everything that it depends on, and
    its size, which shows that it is complete.
    """
    if path.parent == cache_dir() / "graphs":
        return f"{path.stem} {path.stat().st_size}"
    return sha256(path)


def kept(path: Path) -> Optional[GraphFacts]:
    """Return the cached facts of a file, or None."""
    place = _place(path)
    try:
        values = kept_record(place)
        if set(values) == {field.name for field in fields(GraphFacts)}:
            return GraphFacts(**values)
    except (OSError, ValueError, TypeError) as error:
        log.debug("facts '%s' are not used: %s", place, error)
    return None


def keep(path: Path, facts: GraphFacts) -> None:
    """Cache the facts of a file; errors of writing are ignored."""
    with suppress(OSError, IpucnnError):
        keep_record(_place(path), asdict(facts))


def _place(path: Path) -> Path:
    name = hashlib.sha256(f"{identity(path)} {_code()}".encode()).hexdigest()[:32]
    return cache_dir() / "networks" / f"{name}.json"


@lru_cache(maxsize=None)
def _code() -> str:
    """Return the state of the code that reads graphs."""
    states = [path.stat() for path in sorted(Path(__file__).parent.glob("*.py"))]
    return repr((__version__, [(state.st_size, state.st_mtime_ns) for state in states]))


def _only_input(proto: onnx.ModelProto, path: str) -> Tuple[str, str, Tuple[Optional[int], ...]]:
    from onnx import TensorProto

    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [entry for entry in proto.graph.input if entry.name not in weights]
    if len(inputs) != 1:
        raise DataError(f"'{path}' has {len(inputs)} inputs, and a classifier has one: its images",
                        _HOW)
    tensor = inputs[0].type.tensor_type
    shape = tuple(_dimension(dim) for dim in tensor.shape.dim)
    type_name = TensorProto.DataType.Name(tensor.elem_type)
    if len(shape) != 4 or shape[1] != 3 or not shape[2] or shape[2] != shape[3]:
        raise DataError(
            f"the input of '{path}' has shape ({', '.join(str(d or '?') for d in shape)}), and "
            "images are (batch, 3, size, size)", _way_to_images(shape))
    if type_name not in _INPUT_TYPES:
        raise DataError(f"the input of '{path}' is {type_name.lower()}, and images are "
                        + ", ".join(_INPUT_TYPES.values()), _HOW)
    return inputs[0].name, _INPUT_TYPES[type_name], shape


def _way_to_images(shape: Tuple[Optional[int], ...]) -> str:
    """Return the hint for an input of another shape."""
    if len(shape) == 4 and shape[3] == 3 and shape[1] != 3:
        return ("export it with the channels first, as PyTorch does ('--inputs-as-nchw' of "
                "tf2onnx), or put a Transpose before it")
    if len(shape) == 4 and shape[1] == 3 and not (shape[2] and shape[3]):
        return ("set its height and width, with 'python -m onnxruntime.tools."
                "make_dynamic_shape_fixed' or when it is exported")
    return _HOW


def _activation(proto: onnx.ModelProto, path: str) -> Tuple[str, bool]:
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


def _outputs(proto: onnx.ModelProto, path: str) -> int:
    if len(proto.graph.output) != 1:
        names = ", ".join(repr(printable(output.name)) for output in proto.graph.output[:4])
        raise DataError(f"'{path}' has {len(proto.graph.output)} outputs ({names}), and a "
                        "classifier has one: its logits",
                        "keep that one, for example with 'onnx.utils.extract_model'")
    if not proto.graph.output[0].type.HasField("tensor_type"):
        raise DataError(f"the output of '{path}' is a sequence or a map, and logits are a tensor",
                        "export the network without its ZipMap (option 'zipmap' of skl2onnx)")
    kind = proto.graph.output[0].type.tensor_type.elem_type
    if kind not in _FLOATS:
        from onnx import TensorProto

        raise DataError(f"the output of '{path}' is {TensorProto.DataType.Name(kind).lower()}: "
                        "class numbers, and no score for each class",
                        "export the network without its last ArgMax or TopK")
    shape = [_dimension(dim) for dim in proto.graph.output[0].type.tensor_type.shape.dim]
    if len(shape) != 2 or not shape[1]:
        raise DataError(
            f"the output of '{path}' has shape ({', '.join(str(d or '?') for d in shape)}), and "
            "logits are (batch, classes)", _HOW)
    if shape[1] == 1 and {kind for kind, _ in _ends(_inlined(proto), path)[0]} & set(_SOFTMAX):
        raise DataError(f"'{path}' has one output, which is derived from a Softmax: it is always "
                        "1, or the probability of an unknown class",
                        "end the network in a Sigmoid, in the one logit, or in the Softmax of all "
                        "classes, and export it again")
    return shape[1]


def _dimension(dim: Any) -> Optional[int]:
    return int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None
