"""The options of the `openvino` backend."""

from dataclasses import dataclass
from typing import Optional

from ipucnn.core.options.declaration import option
from ipucnn.plugins.backends._options import CacheOptions, DeviceOptions


@dataclass(frozen=True)
class OpenVinoOptions(CacheOptions, DeviceOptions):
    """Options of the `openvino` backend."""

    requests: Optional[int] = option(
        None, "Host calls in flight at a time, each on its share of the cores: throughput is often "
        "better, and latency worse, for which 1 is best (default: what '--tune' found, or what "
        "OpenVINO recommends for throughput).",
        minimum=1, maximum=1024, names=("--num-requests",))
