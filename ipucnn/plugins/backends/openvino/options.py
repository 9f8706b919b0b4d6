"""The options of the `openvino` backend."""

from dataclasses import dataclass

from ipucnn.plugins.backends._options import CacheOptions, DeviceOptions


@dataclass(frozen=True)
class OpenVinoOptions(CacheOptions, DeviceOptions):
    """Options of the `openvino` backend."""
