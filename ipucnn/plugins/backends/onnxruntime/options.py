"""The options of the `onnxruntime` backend."""

from dataclasses import dataclass

from ipucnn.plugins.backends._options import DeviceOptions


@dataclass(frozen=True)
class OnnxRuntimeOptions(DeviceOptions):
    """Options of the `onnxruntime` backend."""
