"""The checks of `ipucnn doctor`. None imports torch; only those of `--deep` do."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from difflib import get_close_matches
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from ipucnn.core.checks import OK, PROBLEM, WARNING, Check
from ipucnn.core.environment import required, version_of
from ipucnn.core.errors import IpucnnError
from ipucnn.core.files import cache_dir
from ipucnn.core.machine import cgroup_quota, openmp_limit, usable_cores
from ipucnn.core.registry import discovery
from ipucnn.core.registry.loading import GUARDED, cause_of, describe, remedy_for
from ipucnn.core.registry.registry import Registry, Row, State, registry
from ipucnn.core.registry.targets import import_target
from ipucnn.doctor.deep import deep_checks
from ipucnn.doctor.report import Report

OLDEST_PYTHON = (3, 8)
LITTLE_SPACE = 1 << 30
SLOW_SECONDS = 1.0
VARIABLES = (
    "IPUCNN_CACHE", "IPUCNN_CIFAR_URL", "IPUCNN_DISABLE_PLUGINS", "IPUCNN_INSTANCE_COUNT",
    "IPUCNN_INSTANCE_INDEX", "IPUCNN_LAUNCHER", "IPUCNN_LOAD_PLUGINS", "IPUCNN_PARENT",
    "IPUCNN_PLUGIN", "IPUCNN_RANK_TIMEOUT", "IPUCNN_SAMPLE_IMAGES_URL", "IPUCNN_STRICT_PLUGINS",
    "IPUCNN_WEIGHTS_URL")
"""The environment variables that ipucnn reads."""

_PREFIX, _ALIKE = "IPUCNN_", 0.8

_CHECKED = ("torch", "torchvision", "pillow")
"""Required packages with checks of their own."""

_PAIRS: Mapping[str, str] = {"2.0.1": "0.15.2"}


def examine(deep: bool = False, plugins: Optional[Registry] = None) -> Report:
    """Check this installation and machine.

    Args:
        deep: also import and test torch and the engines.
        plugins: the registry to check; that of the process when not given.
    """
    checks = [check_python(sys.version_info[:3]), *_packages(), *_plugins(plugins),
              *_machine(), *_variables(os.environ), *_of_plugins(plugins), *_folders()]
    if deep:
        checks += deep_checks(plugins)
    return Report(tuple(checks))


# -- Python and packages ---------------------------------------------------------------------------


def check_python(version: Tuple[int, ...]) -> Check:
    """Check a version of Python."""
    shown = ".".join(str(part) for part in version)
    if version[:2] < OLDEST_PYTHON:
        return Check("python", PROBLEM, f"{shown} is too old",
                     "create the environment with Python 3.8 or newer")
    return Check("python", OK, f"{shown} ({sys.executable})")


def _packages() -> List[Check]:
    own = version_of("ipucnn")
    checks = [Check("ipucnn", OK, own) if own else Check(
        "ipucnn", PROBLEM, "not installed", "pip install -e .")]
    missing = [Check(name, PROBLEM, "not installed", f"pip install '{requirement}'")
               for name, requirement in required().items()
               if name not in _CHECKED and not version_of(name)]
    return [*checks, *missing, *check_torch(version_of("torch"), version_of("torchvision"))]


def check_torch(torch: str, vision: str) -> List[Check]:
    """Check the installed versions of torch and torchvision; empty means not installed."""
    checks = []
    for name, version in (("torch", torch), ("torchvision", vision)):
        checks.append(Check(name, OK, version) if version else Check(
            name, PROBLEM, "not installed", "pip install torch torchvision"))
    if torch and vision:
        fitting = fitting_torchvision(torch)
        if fitting and not (_public(vision) + ".").startswith(fitting + "."):
            checks.append(Check("torch pair", PROBLEM,
                                f"torchvision {vision} was not built for torch {torch}",
                                f"pip install torch=={_public(torch)} 'torchvision=={fitting}"
                                + ("'" if fitting.count(".") > 1 else ".*'")))
        else:
            checks.append(Check("torch pair", OK, f"torchvision {vision} fits torch {torch}"))
    return checks


def fitting_torchvision(torch: str) -> str:
    """Return the torchvision version that matches a version of torch, as far as it is known.

    torchvision 0.(n+15) is released with torch 2.n; patch releases are listed where they matter.
    """
    if _public(torch) in _PAIRS:
        return _PAIRS[_public(torch)]
    match = re.match(r"2\.(\d+)", torch)
    return f"0.{int(match.group(1)) + 15}" if match else ""


def _public(version: str) -> str:
    return version.partition("+")[0]


# -- plugins ---------------------------------------------------------------------------------------


def _plugins(plugins: Optional[Registry]) -> List[Check]:
    try:
        used = plugins or registry()
        rows = used.rows()
    except IpucnnError as error:
        return [Check("plugins", PROBLEM, error.message, error.hint)]
    built_in = sum(1 for row in rows if row.provider.builtin and row.spec)
    others = sorted({row.provider.label for row in rows if not row.provider.builtin})
    checks = [Check("plugins", OK, f"{built_in} built-in, {_listed(others)}")]
    checks += [check for check in map(check_row, rows) if check]
    checks += [Check(f"{row.kind} {row.name}", WARNING, f"{describe(row.provider)}: {use}",
                     f"upgrade {row.provider.distribution} when there is a newer version")
               for row in rows if row.spec is not None for use in row.spec.deprecated]
    for provider, seconds in used.load_seconds().items():
        if seconds > SLOW_SECONDS and not provider.builtin:
            checks.append(Check(
                f"plugin {provider.entry_point}", WARNING,
                f"{describe(provider)} takes {seconds:.1f} s to import, which delays every listing",
                f"export {discovery.DISABLE_VARIABLE}={provider.distribution}"))
    return checks


def check_row(row: Row) -> Optional[Check]:
    """Return the check of a plugin's state; None when there is nothing to report."""
    name = f"plugin {row.name}" if row.spec is None else f"{row.kind} {row.name}"
    where = describe(row.provider)
    if row.state is State.FAILED:
        if row.provider.builtin:
            remedy = "pip install --force-reinstall --no-deps ipucnn"
        elif row.provider.version:
            remedy = f"pip uninstall {row.provider.distribution}"
        else:
            remedy = row.remedy
        return Check(name, PROBLEM, f"{where} failed to load: {row.cause}", remedy)
    if row.state is State.INCOMPATIBLE:
        return Check(name, PROBLEM, f"{where} is {row.cause}",
                     "pip install --upgrade " + row.remedy.rpartition(" ")[2])
    if row.state is State.CONFLICT:
        return Check(name, WARNING, f"{where}: {row.cause}", row.remedy)
    if row.state is State.UNAVAILABLE:  # an optional engine
        return Check(name, OK, row.cause, row.remedy)
    if row.state is State.DISABLED:
        return Check(name, OK, f"{where} is disabled: {row.cause}", row.remedy)
    return Check(name, WARNING, f"{where}: {row.cause}") if row.cause else None


def _of_plugins(plugins: Optional[Registry]) -> List[Check]:
    """Return the checks named in plugin records; each check function is called once."""
    try:
        rows = (plugins or registry()).rows()
    except IpucnnError:
        return []  # reported by the check of the plugins
    named: Dict[str, Row] = {}
    for row in rows:
        if row.spec and row.spec.checks:
            named.setdefault(row.spec.checks, row)
    checks: List[Check] = []
    for target, row in named.items():
        try:
            checks += import_target(target)()
        except GUARDED as error:
            checks.append(Check(f"{row.kind} {row.name}", PROBLEM,
                                f"the checks of {describe(row.provider)} failed: "
                                f"{cause_of(error)}", remedy_for(row.provider)))
    return checks


def _listed(names: List[str]) -> str:
    return "third-party: " + ", ".join(names) if names else "no third-party ones"


# -- the machine -----------------------------------------------------------------------------------


def _machine() -> List[Check]:
    total = os.cpu_count() or 1
    quota = cgroup_quota()
    detail = f"{usable_cores()} usable of {total}"
    if quota is not None:
        detail += f"; the control group has a quota of {quota:g}"
    if openmp_limit() is not None:
        detail += f"; OMP_NUM_THREADS is {openmp_limit()}"
    return [Check("cores", OK, detail), _memory(), _pillow()]


def _variables(environment: Mapping[str, str]) -> List[Check]:
    """Return a warning for each variable that is spelt almost like one of ipucnn.

    Others with this prefix may be those of plugins.
    """
    unknown = sorted(name for name in environment
                     if name.startswith(_PREFIX) and name not in VARIABLES)
    known = [name[len(_PREFIX):] for name in VARIABLES]
    return [Check("variable", WARNING, f"{name} is not read", f"did you mean {_PREFIX}{close}?")
            for name in unknown
            for close in get_close_matches(name[len(_PREFIX):], known, 1, _ALIKE)]


def _folders() -> List[Check]:
    checks = [check_folder("working folder", Path.cwd()), check_folder("cache folder", cache_dir())]
    try:
        return [*checks, check_folder("temporary folder", Path(tempfile.gettempdir()))]
    except FileNotFoundError as error:
        return [*checks, Check("temporary folder", PROBLEM, f"{error.strerror}",
                               "export TMPDIR=FOLDER, with a folder that can be written")]


def _memory() -> Check:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return Check("memory", OK, f"not known on {platform.system()}")
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.split()[1:]}
    available, total = (kilobytes.get(k, 0) / 2 ** 20 for k in ("MemAvailable", "MemTotal"))
    detail = f"{available:.1f} GiB available of {total:.1f} GiB"
    if available < 2:
        return Check("memory", WARNING, detail, "close other programs, or use a small --batch-size")
    return Check("memory", OK, detail)


def _pillow() -> Check:
    simd, plain = version_of("Pillow-SIMD"), version_of("Pillow")
    if simd and plain:
        return Check("decoders", WARNING, f"Pillow {plain} and pillow-simd {simd} overwrite each "
                     "other's files", "pip uninstall -y pillow pillow-simd && pip install pillow")
    if not simd and not plain:
        return Check("decoders", PROBLEM, "Pillow is not installed", "pip install pillow")
    return Check("decoders", OK, f"pillow-simd {simd}" if simd else f"Pillow {plain}")


def check_folder(name: str, folder: Path) -> Check:
    """Check that a folder, or its nearest existing parent, is writable and has free space."""
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(str(existing), os.W_OK | os.X_OK):
        return Check(name, WARNING, f"{folder} cannot be written",
                     f"change the permissions of '{existing}', or use another folder")
    free = shutil.disk_usage(str(existing)).free
    detail = f"{free / 2 ** 30:.1f} GiB free in {folder}"
    if free < LITTLE_SPACE:
        return Check(name, WARNING, detail, f"free some space on the disk of '{existing}'")
    return Check(name, OK, detail)
