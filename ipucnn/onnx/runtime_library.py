"""Imports ONNX Runtime without its telemetry.

Releases since 1.32 for Linux store an identifier of the machine on import, and report sessions to
Microsoft in the background, unless the user has opted out.
"""

import os

__all__ = ["onnxruntime"]

_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
"""Variable that disables the telemetry; it is read on import."""

_before = os.environ.get(_NO_TELEMETRY)
os.environ[_NO_TELEMETRY] = "1"
try:
    import onnxruntime
finally:
    if _before is None:
        del os.environ[_NO_TELEMETRY]
    else:
        os.environ[_NO_TELEMETRY] = _before
