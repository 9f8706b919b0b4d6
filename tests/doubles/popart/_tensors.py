"""Tensor types: what they are called in PopART, ONNX and NumPy."""

import enum

import numpy as np

from popart._errors import popart_exception


class DataType(enum.Enum):
    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    INT32 = 4
    INT64 = 5
    UINT32 = 6
    UINT64 = 7
    BOOL = 8
    FLOAT = 9
    FLOAT16 = 10
    BFLOAT16 = 11
    DOUBLE = 12
    UNDEFINED = 13


_NUMPY = {"UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64",
          "INT8": "int8", "INT16": "int16", "INT32": "int32", "INT64": "int64",
          "FLOAT16": "float16", "FLOAT": "float32", "DOUBLE": "float64", "BOOL": "bool"}


class TensorInfo:
    """A type and a shape: `TensorInfo("FLOAT", [2, 3])`, or of a NumPy array."""

    def __init__(self, *args):
        if len(args) == 1 and isinstance(args[0], np.ndarray):
            args = (args[0].dtype, args[0].shape)
        if len(args) != 2:
            raise TypeError(f"Can not create TensorInfo with args {args}")
        kind, shape = args
        if not isinstance(kind, str):
            names = {name: ours for ours, name in _NUMPY.items()}
            kind = names[np.dtype(kind).name]
        if kind not in _NUMPY:
            raise popart_exception(f"Unrecognised DataType {kind}")
        self._kind, self._shape = kind, [int(size) for size in shape]

    def shape(self):
        return list(self._shape)

    def data_type(self):
        return self._kind

    def data_type_lcase(self):
        return _NUMPY[self._kind]

    def nelms(self):
        return int(np.prod(self._shape, dtype=np.int64))

    def __eq__(self, other):
        return isinstance(other, TensorInfo) and repr(self) == repr(other)

    __hash__ = None

    def __repr__(self):
        return f"{self._kind} {self._shape}"


def onnx_type(info):
    import onnx

    return onnx.TensorProto.DataType.Value(info.data_type())


def info_of(value):
    """Return the `TensorInfo` of an ONNX value; None where a dimension is unknown."""
    import onnx

    tensor = value.type.tensor_type
    if not tensor.elem_type or not tensor.HasField("shape"):
        return None
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
    return None if None in sizes or kind not in _NUMPY else TensorInfo(kind, sizes)
