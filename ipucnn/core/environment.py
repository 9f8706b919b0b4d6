"""Describes the environment of a result (versions, machine and command), and sets variables."""

from __future__ import annotations

import os
import platform
import re
import sys
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Iterator, List

from ipucnn.core.machine import compute_threads, usable_cores
from ipucnn.core.names import without_secrets

_FOR_DEVELOPMENT = re.compile(r"extra\s*==\s*['\"](test|dev)['\"]")
_FURTHER = ("ipucnn", "Pillow-SIMD")
"""Packages that are not requirements: ipucnn itself, and a possible substitute for another one."""

_NVIDIA = Path("/proc/driver/nvidia/gpus")
"""Where NVIDIA's driver describes each GPU."""


def describe() -> Dict[str, Any]:
    """Return the versions and the machine, without importing any of the packages."""
    versions = {package: version for package in _packages()
                for version in [version_of(package)] if version}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": usable_cores(),
        "threads": compute_threads(),
        "packages": versions,
        "command": command(),
    }


def command() -> List[str]:
    """Return the arguments of this process, URLs in them without user, password and query."""
    return [without_secrets(str(part)) for part in sys.argv]


@contextmanager
def environment_with(variables: Dict[str, str]) -> Iterator[None]:
    """Set environment variables in a block, for imports and for the processes that it starts."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def version_of(package: str) -> str:
    """Return the version of an installed distribution; empty if it is not installed."""
    try:
        return metadata.version(package) or ""
    except metadata.PackageNotFoundError:
        return ""


def required() -> Dict[str, str]:
    """Return the requirements of ipucnn that hold everywhere (`rich>=13`), by package."""
    return {_package(requirement): requirement.strip() for requirement in _requirements()
            if ";" not in requirement}


def _packages() -> List[str]:
    """Return the packages that ipucnn and its extras require, except those for development."""
    names = [_package(requirement) for requirement in _requirements()
             if not _FOR_DEVELOPMENT.search(requirement)]
    return sorted({*names, *_FURTHER}, key=str.lower)


def _requirements() -> List[str]:
    try:
        return metadata.requires("ipucnn") or []
    except metadata.PackageNotFoundError:
        return []


def _package(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]


def processor() -> str:
    """Return the name of the processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def nvidia_cards() -> List[str]:
    """Return the names of the NVIDIA GPUs, as their driver reports them to Linux; else empty."""
    found: List[str] = []
    for path in _NVIDIA.glob("*/information"):
        with suppress(OSError):
            found += [line.partition(":")[2].strip()
                      for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
                      if line.startswith("Model:")]
    return sorted(found)
