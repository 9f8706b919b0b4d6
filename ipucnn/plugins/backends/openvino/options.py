"""The options of the `openvino` backend."""

from dataclasses import dataclass
from typing import Optional

from ipucnn.core.options.declaration import option
from ipucnn.plugins.backends._options import CacheOptions, CallOptions, DeviceOptions


@dataclass(frozen=True)
class OpenVinoOptions(CallOptions, CacheOptions, DeviceOptions):
    """Options of the `openvino` backend."""

    requests: Optional[int] = option(
        None, "Number of calls in flight, which share the cores: more often give better "
        "throughput, 1 gives the best latency (default: the result of '--tune', or the number "
        "that OpenVINO recommends for throughput).",
        minimum=1, maximum=1024, names=("--num-requests",))
