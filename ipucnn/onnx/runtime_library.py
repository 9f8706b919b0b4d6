"""Imports ONNX Runtime without its telemetry.

Releases since 1.32 for Linux store an identifier of the machine on import, and report sessions to
Microsoft in the background, unless the user has opted out.
"""

from ipucnn.core.environment import environment_with

__all__ = ["onnxruntime"]

with environment_with({"ORT_DISABLE_TELEMETRY": "1"}):  # read on import
    import onnxruntime
