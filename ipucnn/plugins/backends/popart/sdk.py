"""Imports the `popart` module."""

from __future__ import annotations

import platform
import sys
from typing import Any

from ipucnn.core.errors import UnavailableError
from ipucnn.plugins.backends._ipu.sdk import Library, first_line
from ipucnn.plugins.backends.popart import INSTALL

_ENABLE = "source the enable.sh scripts of the SDK's popart and poplar folders in this shell"


def load() -> Any:
    """Import and return the `popart` module; see `Library.load`.

    Raises:
        UnavailableError: it cannot be used in this process.
    """
    if "popart" not in sys.modules and "onnx" in sys.modules:
        # the import fails then: both bundle a protocol-buffer library with ONNX descriptors
        raise UnavailableError(
            "'popart' must be imported before 'onnx', which this process has imported",
            "import popart at the beginning of the program, or use the 'ipucnn' command")
    return POPART.load()


def _unimportable(error: Exception) -> UnavailableError:
    remedy = _ENABLE
    if sys.version_info[:2] != (3, 8):
        remedy += "; its libraries for Ubuntu 20.04 are for Python 3.8"
    return UnavailableError(f"'popart' cannot be imported with Python {platform.python_version()}: "
                            f"{first_line(error)}", remedy)


POPART = Library("popart", "InferenceSession", INSTALL,
                 version=lambda module: str(module.versionString()), unimportable=_unimportable)
