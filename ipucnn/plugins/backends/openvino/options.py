"""The options of the `openvino` backend."""

from dataclasses import dataclass

from ipucnn.plugins.backends._options import (
    CacheOptions,
    CallOptions,
    DeviceOptions,
    RequestOptions,
)


@dataclass(frozen=True)
class OpenVinoOptions(RequestOptions, CallOptions, CacheOptions, DeviceOptions):
    """Options of the `openvino` backend."""
