"""Imports the `poptorch` module, and detects use of the IPU model."""

from __future__ import annotations

import os
import platform
import sys

import torch  # its version is what PopTorch depends on

from ipucnn.core.errors import UnavailableError
from ipucnn.plugins.backends._ipu.sdk import Library, first_line
from ipucnn.plugins.backends.poptorch import INSTALL


def emulated() -> bool:
    """Return whether PopTorch will use the IPU model: its variables select it.

    Source: PopTorch 3.3, `popart_compiler/source/Utils.cpp`; the small model is one of few tiles.
    """
    for variable in ("POPTORCH_IPU_MODEL", "POPTORCH_SMALL_IPU_MODEL"):
        try:
            if int(os.environ.get(variable, "0")) != 0:
                return True
        except ValueError:
            continue
    return False


def _unimportable(error: Exception) -> UnavailableError:
    here = f"torch {torch.__version__} and Python {platform.python_version()}"
    if isinstance(error, AssertionError):  # PopTorch asserts the torch that it was built for
        return UnavailableError(
            f"'poptorch' is not made for {here}: {first_line(error)}",
            "the Poplar SDK 3.3 and 3.4 need torch 2.0.1, torchvision 0.15.2 and Python 3.8: use "
            "an environment with these")
    remedy = "source the enable.sh scripts of the Poplar SDK in this shell"
    if sys.version_info[:2] != (3, 8):
        remedy += "; its wheels for Ubuntu 20.04 are for Python 3.8"
    return UnavailableError(f"'poptorch' cannot be imported with {here}: {first_line(error)}",
                            remedy)


POPTORCH = Library("poptorch", "PoplarExecutor", INSTALL,
                   version=lambda module: str(module.__version__), unimportable=_unimportable)
