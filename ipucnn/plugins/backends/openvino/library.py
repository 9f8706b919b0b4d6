"""Imports OpenVINO without its telemetry.

On import, OpenVINO reports its use to Google Analytics, unless the user has opted out or the
process is a job of continuous integration. For this, it forks the process, which has threads.
"""

from ipucnn.core.environment import environment_with

__all__ = ["openvino"]

with environment_with({"CI": "true"}):  # read on import
    import openvino
