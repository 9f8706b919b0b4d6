"""Known faults of releases of ONNX Runtime, which settings of a session avoid."""

from __future__ import annotations

from typing import Any


def avoid(options: Any) -> None:
    """Disable optimisations of the installed ONNX Runtime that change results.

    Releases 1.19 and 1.20 merge padding into a following average pool, which then divides by the
    number of pixels without it. torch 2.0 exports padded average pools in this form.
    Source: microsoft/onnxruntime#23190.

    Args:
        options: the `SessionOptions` of a session; changed.
    """
    from ipucnn.onnx.runtime_library import onnxruntime

    if onnxruntime.__version__.startswith(("1.19.", "1.20.")):
        options.add_session_config_entry("optimization.disable_specified_optimizers", "Pad_Fusion")
