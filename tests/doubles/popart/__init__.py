# ruff: noqa: F401
"""A strict stand-in for PopART 3.3: what the contract file does not list, it does not have.

It executes on the CPU with the semantics of the real one, as far as ipucnn uses it. Put the folder
above on `sys.path` to import it. `popart._machine` defines the hardware that it simulates.
With POPART_DOUBLE_IMPORT_ORDER=strict it refuses, as the real one does, to come after onnx.
"""

import os as _os
import sys as _sys

if _os.environ.get("POPART_DOUBLE_IMPORT_ORDER") == "strict" and "onnx" in _sys.modules:
    raise ImportError("It looks like onnx has already been imported. Due to an ongoing issue, "
                      "popart must be imported before onnx.")

from popart import _enums as _all_enums
from popart import _options as _all_options
from popart._builder import (
    AiGraphcore,
    AiGraphcoreOpset1,
    AiOnnx,
    AiOnnx6,
    AiOnnx7,
    AiOnnx8,
    AiOnnx9,
    AiOnnx10,
    AiOnnx11,
    Builder,
    Opset,
)
from popart._errors import (
    OutOfMemoryException,
    popart_exception,
    popart_internal_exception,
    popart_runtime_error,
    poplar_application_runtime_error,
    poplar_exception,
    poplar_recoverable_runtime_error,
    poplar_runtime_error,
    poplar_system_runtime_error,
    poplar_unknown_runtime_error,
    poplar_unrecoverable_runtime_error,
    poplibs_exception,
)
from popart._flow import (
    AnchorReturnType,
    DataFlow,
    InputSettings,
    InputShapeInfo,
    IStepIO,
    IWeightsIO,
    PyStepIO,
    PyWeightsIO,
)
from popart._machine import DeviceInfo, DeviceManager
from popart._optimizers import (
    SGD,
    Adam,
    Adaptive,
    ConstSGD,
    Optimizer,
    OptimizerValue,
    OptimizerValueMap,
)
from popart._options import Patterns, SessionOptions
from popart._session import InferenceSession
from popart._tensors import DataType, TensorInfo
from popart._training import TrainingSession
from popart._transformer import GraphTransformer

globals().update(_all_enums.ENUMS)
globals().update(_all_options._SETTINGS)

__version__ = "3.3.0-double"
defaultAiOnnxOpset = 10
defaultAiGraphcoreOpset = 1


def versionString():
    return "3.3.0-double"


def reservedAcclPrefix():
    return "Accl___"


def reservedAccl1Prefix():
    return "Accl1___"


def reservedAccl2Prefix():
    return "Accl2___"


def reservedAccl3Prefix():
    return "Accl3___"


def reservedStepPrefix():
    return "Step___"


def packageHash():
    return "double"


class Logger:
    def setLevel(self, level):
        if level not in ("TRACE", "DEBUG", "INFO", "WARN", "ERR", "CRITICAL", "OFF"):
            raise popart_exception(f"Unknown logging level {level}")


def getLogger(name="all"):
    return Logger()
