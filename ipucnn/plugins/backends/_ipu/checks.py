"""Checks of the Poplar SDK for `ipucnn doctor`: what is installed, enabled and set.

Nothing of the SDK is imported.

Sources: PopTorch 3.3 (`setup.py` for the metadata of its wheel, `python/__init__.py` and
`popart_compiler/source/Utils.cpp` for the variables) and the Poplar SDK user guide.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import List, Mapping, Optional, Tuple

from ipucnn.core.checks import OK, PROBLEM, WARNING, Check
from ipucnn.plugins.backends._ipu.sdk import SUPPORTED
from ipucnn.plugins.backends._ipu.variables import check_variables

TORCH, PYTHON = "2.0.1", (3, 8)

_ENABLE = "source the enable.sh scripts of the SDK's poplar and popart folders in this shell"
_WHEEL = "Graphcore's wheel is in the folder of the Poplar SDK 3.3 or 3.4, and on no package index"


def check_sdk(environ: Optional[Mapping[str, str]] = None) -> List[Check]:
    """Check PopTorch, PopART, the shell, and the environment variables of the SDK."""
    env = os.environ if environ is None else environ
    found = _distribution("poptorch")
    return [*(_installed(found) if found else [_absent()]), _popart(), _shell(env, found),
            *check_variables(env)]


# -- PopTorch --------------------------------------------------------------------------------------


def graphcores(found: metadata.Distribution) -> bool:
    """Return whether a distribution named `poptorch` is Graphcore's.

    Graphcore's wheel states its author in the metadata and contains a compiled core. It is part of
    the SDK only; other packages of that name have neither.
    """
    maker = " ".join(_field(found, name) for name in ("Author", "Author-email", "Home-page"))
    return "graphcore" in maker.lower() and bool(_core(found))


def _field(found: metadata.Distribution, field: str) -> str:
    return " ".join(str(value) for value in found.metadata.get_all(field) or [])


def _core(found: metadata.Distribution) -> List[Path]:
    return sorted(Path(str(found.locate_file("poptorch"))).glob("poptorch_core*"))


def _installed(found: metadata.Distribution) -> List[Check]:
    version = found.version or ""
    if not graphcores(found):
        return [Check("PopTorch", PROBLEM, f"the installed 'poptorch' {version} is not "
                      "Graphcore's: it names another maker or has no compiled core",
                      "pip uninstall poptorch; " + _WHEEL)]
    checks = [_release("PopTorch", version)]
    wanted = [why for why in (_wrong_python(found), _wrong_torch(found)) if why]
    if wanted:
        checks.append(Check("PopTorch requirements", PROBLEM, "; ".join(wanted),
                            "make an environment of this Python and install the SDK's wheel there"))
    else:
        checks.append(Check("PopTorch requirements", OK,
                            "the required versions of Python and torch are installed"))
    return checks


def _release(name: str, version: str) -> Check:
    release = ".".join(version.split(".")[:2])
    if release in SUPPORTED:
        return Check(name, OK, f"{version}, Graphcore's")
    old = _numbers(release) < _numbers(SUPPORTED[0])
    return Check(name, PROBLEM if old else WARNING,
                 f"{version}, Graphcore's; ipucnn is made for {' and '.join(SUPPORTED)}",
                 "use the Poplar SDK 3.3 or 3.4")


def _absent() -> Check:
    try:
        spec = importlib.util.find_spec("poptorch")
    except (ImportError, ValueError):
        spec = None
    if spec is not None and spec.origin:
        return Check("PopTorch", WARNING, f"a module without a distribution: {spec.origin}",
                     "remove it, unless it is a build of your own; " + _WHEEL)
    return Check("PopTorch", OK, "not installed, needs the Poplar SDK",
                 "to use IPUs, install it; " + _WHEEL)


def _wrong_python(found: metadata.Distribution) -> str:
    match = re.match(r"==\s*(\d+)\.(\d+)", _field(found, "Requires-Python")) \
        or re.search(r"cpython-(\d)(\d+)", " ".join(path.name for path in _core(found)))
    wanted = (int(match.group(1)), int(match.group(2))) if match else PYTHON
    here = sys.version_info[:2]
    return "" if wanted == here else (f"it is made for Python {wanted[0]}.{wanted[1]}, and this is "
                                      f"{here[0]}.{here[1]}")


def _wrong_torch(found: metadata.Distribution) -> str:
    pinned = [re.match(r"torch\s*\(?==\s*([\d.]+)", need) for need in found.requires or []]
    wanted = next((match.group(1) for match in pinned if match), TORCH)
    torch = _distribution("torch")
    here = torch.version.partition("+")[0] if torch else ""
    if here == wanted:
        return ""
    return f"it needs torch {wanted}, and " + (f"{here} is installed" if here
                                               else "none is installed")


# -- PopART ----------------------------------------------------------------------------------------


def _popart() -> Check:
    """Check the module `popart` that would be imported.

    Graphcore's module is in the SDK's folder, whose name contains the release, next to a compiled
    core. It is not a distribution, and a package index has another module of that name.
    """
    try:
        spec = importlib.util.find_spec("popart")
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.origin:
        return Check("PopART", OK, "not enabled in this shell", "to use it, " + _ENABLE)
    package = Path(spec.origin).parent
    core = sorted(package.parent.glob("popart_core*"))
    if not core:
        other = _distribution("popart")
        return Check("PopART", PROBLEM if other else WARNING, f"the 'popart' of {package} is not "
                     "Graphcore's: it has no compiled core",
                     ("pip uninstall popart" if other else "remove it") + "; " + _ENABLE)
    made_for = re.search(r"cpython-(\d)(\d+)", " ".join(path.name for path in core))
    if made_for and tuple(map(int, made_for.groups())) != sys.version_info[:2]:
        return Check("PopART", PROBLEM, f"it is made for Python {'.'.join(made_for.groups())}, and "
                     f"this is {sys.version_info[0]}.{sys.version_info[1]}",
                     "make an environment of this Python")
    release = re.search(r"popart[^/]*-(\d+\.\d+\.\d+)", str(package))
    if release is None:
        return Check("PopART", OK, f"Graphcore's, in {package}")
    return _release("PopART", release.group(1))


# -- the shell -------------------------------------------------------------------------------------


def _shell(env: Mapping[str, str], found: Optional[metadata.Distribution]) -> Check:
    enabled = env.get("POPLAR_SDK_ENABLED", "")
    missing = [name for name in ("poplar", "popart") if not _library(env, name)]
    if not enabled:
        if found is None:
            return Check("IPU SDK", OK, "not enabled in this shell", "to use IPUs, " + _ENABLE)
        return Check("IPU SDK", WARNING, "POPLAR_SDK_ENABLED is not set: the SDK is not enabled in "
                     "this shell", _ENABLE)
    detail = f"POPLAR_SDK_ENABLED={enabled}"
    if not Path(enabled).exists():
        return Check("IPU SDK", WARNING, detail + ", which is not there", _ENABLE)
    if missing:
        return Check("IPU SDK", WARNING, f"{detail}, and no folder of LD_LIBRARY_PATH has "
                     + " or ".join(f"lib{name}.so" for name in missing), _ENABLE)
    match = re.search(r"poplar[^/]*-(\d+\.\d+)\.\d+", enabled)
    if found and match and not (found.version or "").startswith(match.group(1) + "."):
        return Check("IPU SDK", WARNING, f"{detail} is of {match.group(1)}, and PopTorch is "
                     f"{found.version}", "enable the SDK that PopTorch came with")
    return Check("IPU SDK", OK, detail)


def _library(env: Mapping[str, str], name: str) -> bool:
    folders = [part for part in env.get("LD_LIBRARY_PATH", "").split(os.pathsep) if part]
    return any((Path(folder) / f"lib{name}.so").exists() for folder in folders)


def _distribution(name: str) -> Optional[metadata.Distribution]:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(release: str) -> Tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", release))
