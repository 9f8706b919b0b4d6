"""The options of the `openvino` backend."""

from dataclasses import dataclass

from ipucnn.plugins.backends._options import (
    CacheOptions,
    CallOptions,
    DeviceOptions,
    RequestOptions,
    ThreadOptions,
)


@dataclass(frozen=True)
class OpenVinoOptions(RequestOptions, ThreadOptions, CallOptions, CacheOptions, DeviceOptions):
    """Options of the `openvino` backend."""
