"""The options of the `openvino` backend."""

from dataclasses import dataclass
from typing import Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import option
from ipucnn.plugins.backends._options import CacheOptions, DeviceOptions


@dataclass(frozen=True)
class OpenVinoOptions(CacheOptions, DeviceOptions):
    """Options of the `openvino` backend."""

    requests: Optional[int] = option(
        None, "Host calls in flight at a time, each on its share of the cores: throughput is often "
        "better, and latency worse (default: what '--tune' found for this network, or 1).",
        minimum=1, maximum=1024, names=("--num-requests",))
    tune: bool = option(
        False, "Measure how many '--requests' are fastest for this network on this machine, and "
        "use that from now on.")

    def __post_init__(self) -> None:
        if self.tune and self.requests is not None:
            raise UsageError("'--tune' measures what '--requests' states", "leave one of them out")
