"""Imports OpenVINO without its telemetry.

On import, OpenVINO reports its use to Google Analytics, unless the user has opted out or the
process is a job of continuous integration. For this, it forks the process, which has threads.
"""

import os

__all__ = ["openvino"]

_NO_TELEMETRY = "CI"
"""Variable that disables the telemetry; it is read on import."""

_before = os.environ.get(_NO_TELEMETRY)
os.environ[_NO_TELEMETRY] = "true"
try:
    import openvino
finally:
    if _before is None:
        del os.environ[_NO_TELEMETRY]
    else:
        os.environ[_NO_TELEMETRY] = _before
