"""A strict stand-in for PopTorch 3.3: what the contract file does not list, it does not have.

It executes on the CPU with the semantics of the real one, as far as ipucnn uses it. Put the folder
above on `sys.path` to import it. `poptorch._machine` defines the hardware that it simulates.
Of the contract it imitates what ipucnn uses; what is missing here raises `AttributeError`.
"""

import multiprocessing as _multiprocessing
import os as _os

import torch as _torch

from poptorch import optim, options
from poptorch._blocks import (
    BeginBlock,
    recomputationCheckpoint,
    removeBlocks,
    set_overlap_for_input,
    set_overlap_for_output,
)
from poptorch._enums import (
    ConnectionType,
    DataLoaderMode,
    MeanReductionStrategy,
    OutputMode,
    OverlapMode,
    ReductionType,
    SharingStrategy,
)
from poptorch._errors import Error, RecoverableError, UnrecoverableError
from poptorch._executor import PoplarExecutor, inferenceModel, trainingModel
from poptorch._loading import AsynchronousDataAccessor, DataLoader
from poptorch._losses import identity_loss
from poptorch._machine import ipuHardwareIsAvailable, ipuHardwareVersion
from poptorch.options import (
    Options,
    PipelinedExecution,
    ShardedExecution,
    TensorLocationSettings,
)

# the real one asserts the torch that it was built for, too; worker processes, which receive what
# they do while this is imported, have the environment of the test that started the first of them
assert _torch.__version__.startswith("2.0.1") or _os.environ.get("POPTORCH_DOUBLE_TORCH") \
    or hasattr(_multiprocessing.current_process(), "_inheriting"), (
    "This version of PopTorch only works with torch==2.0.1 but the version installed is "
    f"{_torch.__version__}")

__version__ = "3.3.0-double"

__all__ = [
    "AsynchronousDataAccessor",
    "BeginBlock",
    "ConnectionType",
    "DataLoader",
    "DataLoaderMode",
    "Error",
    "MeanReductionStrategy",
    "Options",
    "OutputMode",
    "OverlapMode",
    "PipelinedExecution",
    "PoplarExecutor",
    "RecoverableError",
    "ReductionType",
    "ShardedExecution",
    "SharingStrategy",
    "TensorLocationSettings",
    "UnrecoverableError",
    "__version__",
    "identity_loss",
    "inferenceModel",
    "ipuHardwareIsAvailable",
    "ipuHardwareVersion",
    "optim",
    "options",
    "recomputationCheckpoint",
    "removeBlocks",
    "set_overlap_for_input",
    "set_overlap_for_output",
    "trainingModel",
]
