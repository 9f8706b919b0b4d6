"""Selects OpenVINO's device and its half-precision type."""

from __future__ import annotations

from typing import Any, Optional

from ipucnn.core.errors import UsageError

_HALF = {"CPU": ("BF16", "bf16"), "GPU": ("FP16", "f16")}
"""The half-precision type of devices: as a capability, and as a value of properties."""

NAMES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
"""Floating-point types by OpenVINO's names."""


def picked(core: Any, wanted: Optional[str]) -> str:
    """Return OpenVINO's name of the device called `wanted`; the CPU when None.

    Raises:
        UsageError: this machine does not have the device.
    """
    kind, _, index = (wanted or "cpu").partition(":")
    if kind not in ("cpu", "gpu") or (index and not (kind == "gpu" and index.isdecimal())):
        raise UsageError(f"the openvino backend has no device {wanted!r}",
                         "devices: cpu, gpu, gpu:N")
    name = kind.upper() + (f".{index}" if index else "")
    there = core.available_devices
    if name not in there and not any(other.startswith(name + ".") for other in there):
        found = ", ".join(other.lower().replace(".", ":") for other in there) or "none"
        raise UsageError(f"OpenVINO finds no device {wanted!r} here",
                         f"devices here: {found}; a GPU must be Intel's and needs its driver")
    return name


def half_type(core: Any, device: str) -> str:
    """Return a device's half-precision type (`bf16`, `f16`); empty if it has none."""
    capability, name = _HALF[device.partition(".")[0]]
    return name if capability in core.get_property(device, "OPTIMIZATION_CAPABILITIES") else ""
