"""The environment that a result is true of."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Any, Dict

from ipucnn.core.machine import usable_cores

PACKAGES = ("ipucnn", "torch", "torchvision", "numpy", "Pillow", "Pillow-SIMD",
            "efficientnet-pytorch", "pretrainedmodels", "onnx", "onnxruntime", "openvino", "nncf")


def describe() -> Dict[str, Any]:
    """Return the versions and the machine, without importing any of the packages."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": usable_cores(),
        "packages": versions,
        "command": [str(part) for part in sys.argv],
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
