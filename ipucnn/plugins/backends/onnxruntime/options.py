"""The options of the `onnxruntime` backend."""

from dataclasses import dataclass
from typing import Optional

from ipucnn.core.options.declaration import option
from ipucnn.plugins.backends._options import DeviceOptions


@dataclass(frozen=True)
class OnnxRuntimeOptions(DeviceOptions):
    """Options of the `onnxruntime` backend."""

    spinning: Optional[bool] = option(
        None, "Threads on a CPU wait actively for the next operator, which is faster on idle cores "
        "and slower where other processes use them (default: what '--tune' found, or yes).")
