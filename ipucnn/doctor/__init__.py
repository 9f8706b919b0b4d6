"""`ipucnn doctor`: check the installation and suggest fixes.

No check imports torch; only `--deep` loads and tests the engines.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ipucnn.core.checks import OK, PROBLEM, WARNING, Check
from ipucnn.core.errors import IpucnnError
from ipucnn.core.machine import cgroup_quota, openmp_limit, usable_cores
from ipucnn.core.registry import discovery
from ipucnn.core.registry.loading import (
    GUARDED,
    cause_of,
    describe,
    import_target,
    remedy_for,
)
from ipucnn.core.registry.records import BackendSpec
from ipucnn.core.registry.registry import Registry, Row, State, registry
from ipucnn.data.remote.download import cache_dir
from ipucnn.doctor.report import Report

OLDEST_PYTHON = (3, 8)
LITTLE_SPACE = 1 << 30
SLOW_SECONDS = 1.0
_EXACT = 1e-3
"""Largest difference of an output that is of the order of 1, in single precision."""
_REINSTALL = "pip install --force-reinstall torch torchvision"
_PAIRS: Mapping[str, str] = {"2.0.1": "0.15.2"}


class _Function(ModuleType):
    """This package can be called: `ipucnn.doctor()` is its name in Python, too."""

    def __call__(self, deep: bool = False) -> Report:
        """Check this installation and machine: `ipucnn doctor` in Python.

        Args:
            deep: also import and test torch and the engines.

        Returns:
            The checks; `ok` is true if none found a problem.
        """
        return examine(deep)


sys.modules[__name__].__class__ = _Function


def examine(deep: bool = False, plugins: Optional[Registry] = None) -> Report:
    """Check this installation and machine.

    Args:
        deep: also import and test torch and the engines.
        plugins: the registry to check; that of the process when not given.
    """
    checks = [check_python(sys.version_info[:3]), *_packages(), *_plugins(plugins),
              *_machine(), *_of_plugins(plugins), *_folders()]
    if deep:
        checks += _deep(plugins)
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
    own = _version("ipucnn")
    checks = [Check("ipucnn", OK, own) if own else Check(
        "ipucnn", PROBLEM, "not installed", "pip install -e .")]
    return [*checks, *check_torch(_version("torch"), _version("torchvision"))]


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


def _version(package: str) -> str:
    try:
        return metadata.version(package) or ""
    except metadata.PackageNotFoundError:
        return ""


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


def _folders() -> List[Check]:
    folders = {"working folder": Path.cwd(), "cache folder": cache_dir(),
               "temporary folder": Path(tempfile.gettempdir())}
    return [check_folder(name, folder) for name, folder in folders.items()]


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
    simd, plain = _version("Pillow-SIMD"), _version("Pillow")
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


# -- the deep examination --------------------------------------------------------------------------


def _deep(plugins: Optional[Registry]) -> List[Check]:
    checks = [_tried("convolution in single precision", lambda: _convolution(half=False)),
              _tried("convolution in half precision", lambda: _convolution(half=True)),
              _tried("CUDA", _cuda), _tried("JPEG decoding", _decode),
              _tried("decoder versions", _decoders)]
    try:
        used = plugins or registry()
        rows = [row for row in used.rows("backend") if row.spec and row.state is State.OK]
    except IpucnnError:
        return checks  # reported by the check of the plugins
    for row in rows:
        remedy = "" if row.provider.builtin else f"pip uninstall {row.provider.distribution}"
        checks.append(_tried(f"backend {row.name}", _prober(used, row), remedy or _REINSTALL))
    # after all probes, which import engines in an order that these allow
    usable = {check.name for check in checks if check.status == OK}
    for row in rows:
        spec = row.spec
        if f"backend {row.name}" in usable and isinstance(spec, BackendSpec) and spec.inference \
                and "32.32" in spec.precisions:
            checks.append(_tried(f"backend {row.name} computes", _trial(used, row),
                                 "run 'ipucnn run' with '--traceback' there"))
    return checks


def _tried(name: str, trial: Callable[[], Any], remedy: str = _REINSTALL) -> Check:
    try:
        found = trial()
    except IpucnnError as error:
        return Check(name, PROBLEM, error.message, error.hint)
    except Exception as error:
        return Check(name, PROBLEM, f"{type(error).__name__}: {str(error).strip()[:200]}",
                     remedy)
    return found if isinstance(found, Check) else Check(name, OK, str(found))


def _trial(used: Registry, row: Row) -> Callable[[], Check]:
    """Return a function that compiles and runs a small network, and compares it with torch."""
    def trial() -> Check:
        import copy

        import torch

        from ipucnn.core.execution.plan import ExecutionPlan

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = torch.nn.Sequential(
                torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.ReLU(),
                torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
            images = torch.randn(1, 3, 16, 16)
        plan = ExecutionPlan(precision="32.32", normalisation="host", eight_bit_io=False)
        name = f"backend {row.name} computes"
        if row.spec is None:  # pragma: no cover - only records are tried
            raise ValueError(row.name)
        with used.make(row.spec).inference(copy.deepcopy(network), plan, 16) as session:
            seconds = session.compile()
            answer = session(images)
        with torch.no_grad():
            error = float((answer - network(images)).abs().max())
        measured = f"a small network compiles in {seconds:.1f} s and differs by {error:.1g}"
        return Check(name, OK if error < _EXACT else PROBLEM, measured,
                     "" if error < _EXACT else "its figures cannot be trusted: report this")

    return trial


def _convolution(half: bool) -> str:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float32 if not half else torch.float16 if device == "cuda" else torch.bfloat16
    images = torch.ones(1, 3, 8, 8, device=device, dtype=dtype)
    weight = torch.ones(2, 3, 3, 3, device=device, dtype=dtype)
    result = torch.nn.functional.conv2d(images, weight)
    if not bool((result == 27).all()):
        raise RuntimeError("a convolution of ones does not give 27")
    return f"{str(dtype).replace('torch.', '')} on {device}, torch {torch.__version__}"


DRIVER = Path("/proc/driver/nvidia/version")
"""Linux's information on the NVIDIA driver."""


def _cuda() -> Check:
    """Check which GPUs torch can use."""
    import torch

    driver = DRIVER.exists()
    if torch.version.cuda is None:
        if not driver:
            return Check("CUDA", OK, f"torch {torch.__version__} is a build for CPUs, and this "
                         "machine has no NVIDIA driver")
        return Check("CUDA", WARNING, f"torch {torch.__version__} is a build for CPUs, and this "
                     "machine has an NVIDIA driver", "install a build for CUDA: "
                     "https://pytorch.org/get-started")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and hidden.strip() in ("", "-1"):
        return Check("CUDA", WARNING, f"CUDA_VISIBLE_DEVICES is {hidden!r}, which hides all GPUs",
                     "unset it to use them")
    if torch.cuda.is_available():
        return _gpus(torch)
    if not driver:
        return Check("CUDA", OK, f"torch is built for CUDA {torch.version.cuda}, and this machine "
                     "has no NVIDIA driver")
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        reason = "no GPU is visible"
    except (RuntimeError, AssertionError) as error:
        reason = (str(error).strip().splitlines() or ["unknown"])[0]
    return Check("CUDA", PROBLEM, f"torch is built for CUDA {torch.version.cuda} and finds no GPU: "
                 f"{reason}", "compare the driver's CUDA version in 'nvidia-smi', and update the "
                 "driver or install a torch for an older CUDA")


def _gpus(torch: Any) -> Check:
    """Return a check that lists the GPUs and versions of the driver and libraries."""
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Check("CUDA", OK, f"{', '.join(names)}; CUDA {torch.version.cuda}, cuDNN "
                 f"{torch.backends.cudnn.version()}")


def _decode() -> str:
    import io

    from PIL import Image

    from ipucnn.data.images import decode

    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 30, 90)).save(buffer, "JPEG", quality=95)
    image = decode(buffer.getvalue(), "doctor.jpg")
    if tuple(image.shape) != (3, 16, 16) or abs(int(image[0, 8, 8]) - 200) > 8:
        raise RuntimeError("a JPEG was not decoded correctly")
    return "works"


def _decoders() -> str:
    from ipucnn.data.images import decoder_versions

    return ", ".join(f"{name}: {version}" for name, version in decoder_versions().items())


def _prober(used: Registry, row: Row) -> Callable[[], Check]:
    def probe() -> Check:
        name = f"backend {row.name}"
        if row.spec is None:  # pragma: no cover - only records are probed
            raise ValueError(row.name)
        found = used.make(row.spec).probe()
        if not found.usable:
            return Check(name, WARNING, f"not usable here: {found.reason}", found.remedy)
        half = f"half precision is {found.half}" if found.half else "no half precision"
        versions = ", ".join(f"{what} {version}" for what, version in found.versions.items())
        return Check(name, OK, "; ".join(
            part for part in (found.device, half, versions, *found.notes) if part))

    return probe
