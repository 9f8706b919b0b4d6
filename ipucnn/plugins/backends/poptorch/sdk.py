"""PopTorch itself: whether it imports here, and whether it is one that this backend knows."""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from typing import Any, Optional, Tuple

import torch  # noqa: TID253 - its version is what PopTorch depends on

from ipucnn.core.errors import UnavailableError
from ipucnn.plugins.backends.poptorch import INSTALL

OLDEST, NEWEST = (3, 3), (3, 4)
"""The releases whose interface this backend was written for: the two have the same."""

_SUPPORTED = " or ".join(".".join(map(str, version)) for version in (OLDEST, NEWEST))


def emulated() -> bool:
    """Return whether PopTorch will use the IPU model, as its own reading of the environment has it.

    Source: PopTorch 3.3, `popart_compiler/source/Utils.cpp`; the small model is one of few tiles.
    """
    for variable in ("POPTORCH_IPU_MODEL", "POPTORCH_SMALL_IPU_MODEL"):
        try:
            if int(os.environ.get(variable, "0")) != 0:
                return True
        except ValueError:
            continue
    return False


def load() -> Any:
    """Return the `poptorch` module.

    Raises:
        UnavailableError: it is missing, does not import in this environment, is too old, or is
            something else of that name.
    """
    try:
        module = importlib.import_module("poptorch")
    except ModuleNotFoundError as error:
        if error.name == "poptorch":
            raise UnavailableError("'poptorch' is not installed", INSTALL) from error
        raise _unimportable(error) from error
    except Exception as error:  # an assertion on torch's version, a library that is not found ...
        raise _unimportable(error) from error
    if not hasattr(module, "PoplarExecutor"):  # an index has, or may have, others of that name
        raise UnavailableError(
            f"the module 'poptorch' of {getattr(module, '__file__', None)} is not Graphcore's",
            "'pip uninstall poptorch' removes it. " + INSTALL)
    version = _release(module)
    if version is not None and version < OLDEST:
        raise UnavailableError(
            f"'poptorch' is of version {module.__version__}, and this backend needs "
            f"{_SUPPORTED}", INSTALL)
    return module


def newer_note(module: Any) -> Tuple[str, ...]:
    """Return what to say of a release that this backend was not written for."""
    version = _release(module)
    if version is None or version > NEWEST:
        return (f"'poptorch' is of version {module.__version__}; this backend was written for "
                f"{_SUPPORTED}",)
    return ()


def _release(module: Any) -> Optional[Tuple[int, int]]:
    match = re.match(r"(\d+)\.(\d+)", module.__version__)
    return (int(match.group(1)), int(match.group(2))) if match else None


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


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
