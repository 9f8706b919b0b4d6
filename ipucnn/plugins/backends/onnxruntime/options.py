"""The options of the `onnxruntime` backend."""

from dataclasses import dataclass
from typing import Optional

from ipucnn.core.options.declaration import option
from ipucnn.plugins.backends._options import (
    CallOptions,
    DeviceOptions,
    RequestOptions,
    ThreadOptions,
)


@dataclass(frozen=True)
class OnnxRuntimeOptions(RequestOptions, ThreadOptions, CallOptions, DeviceOptions):
    """Options of the `onnxruntime` backend."""

    spinning: Optional[bool] = option(
        None, "Let CPU threads wait actively for the next operator, which is faster on idle cores "
        "and slower if other processes use them (default: the result of '--tune', or else yes, "
        "unless other programs use all processors at the start).",
        only="inference", validation=True)
