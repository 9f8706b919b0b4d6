"""The options of the `ncnn` backend."""

from dataclasses import dataclass

from ipucnn.plugins.backends._options import DeviceOptions, RequestOptions, ThreadOptions


@dataclass(frozen=True)
class NcnnOptions(RequestOptions, ThreadOptions, DeviceOptions):
    """Options of the `ncnn` backend."""
