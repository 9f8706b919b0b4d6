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
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

from ipucnn.core.bounded_folder import keep_record, kept_record
from ipucnn.core.errors import DataError, IpucnnError
from ipucnn.core.files import cache_dir
from ipucnn.core.names import printable
from ipucnn.data.remote.download import sha256
from ipucnn.onnx.output_activation import activation_of, ends_in_softmax
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
        outputs, sigmoid = activation_of(model, path)
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
    if shape[1] == 1 and ends_in_softmax(proto, path):
        raise DataError(f"'{path}' has one output, which is derived from a Softmax: it is always "
                        "1, or the probability of an unknown class",
                        "end the network in a Sigmoid, in the one logit, or in the Softmax of all "
                        "classes, and export it again")
    return shape[1]


def _dimension(dim: Any) -> Optional[int]:
    return int(dim.dim_value) if dim.HasField("dim_value") and dim.dim_value > 0 else None
