"""PopART itself: whether it imports here, and whether it is one that this backend knows."""

from __future__ import annotations

import importlib
import platform
import re
import sys
from typing import Any, Optional, Tuple

from ipucnn.core.errors import UnavailableError
from ipucnn.plugins.backends.popart import INSTALL

OLDEST, NEWEST = (3, 3), (3, 4)
"""The releases whose interface this backend was written for: what it uses is the same in both."""

_SUPPORTED = " or ".join(".".join(map(str, version)) for version in (OLDEST, NEWEST))
_ENABLE = "source the enable.sh scripts of the SDK's popart and poplar folders in this shell"


def load() -> Any:
    """Return the `popart` module.

    Raises:
        UnavailableError: it is missing, does not import in this process, is too old, or is
            something else of that name.
    """
    if "popart" not in sys.modules and "onnx" in sys.modules:
        # it refuses then: both bring a protocol-buffer library with descriptions of ONNX
        raise UnavailableError(
            "'popart' must be imported before 'onnx', which this process has imported",
            "import popart at the beginning of the program, or use the 'ipucnn' command")
    try:
        module = importlib.import_module("popart")
    except ModuleNotFoundError as error:
        if error.name == "popart":
            raise UnavailableError("'popart' is not installed", INSTALL) from error
        raise _unimportable(error) from error
    except Exception as error:  # a library that is not found, a core for another Python ...
        raise _unimportable(error) from error
    if not hasattr(module, "InferenceSession"):  # a package index has another of that name
        raise UnavailableError(
            f"the module 'popart' of {getattr(module, '__file__', None)} is not Graphcore's",
            "'pip uninstall popart' removes it. " + INSTALL)
    release = _release(module)
    if release is not None and release < OLDEST:
        raise UnavailableError(f"'popart' is of version {version(module)}, and this backend needs "
                               f"{_SUPPORTED}", INSTALL)
    return module


def version(module: Any) -> str:
    """Return the version that PopART gives itself."""
    return str(module.versionString())


def newer_note(module: Any) -> Tuple[str, ...]:
    """Return what to say of a release that this backend was not written for."""
    release = _release(module)
    if release is None or release > NEWEST:
        return (f"'popart' is of version {version(module)}; this backend was written for "
                f"{_SUPPORTED}",)
    return ()


def _release(module: Any) -> Optional[Tuple[int, int]]:
    match = re.match(r"(\d+)\.(\d+)", version(module))
    return (int(match.group(1)), int(match.group(2))) if match else None


def _unimportable(error: Exception) -> UnavailableError:
    remedy = _ENABLE
    if sys.version_info[:2] != (3, 8):
        remedy += "; its libraries for Ubuntu 20.04 are for Python 3.8"
    return UnavailableError(f"'popart' cannot be imported with Python {platform.python_version()}: "
                            f"{first_line(error)}", remedy)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
