"""The checks of `ipucnn doctor --deep`, which load and test torch and the engines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, List, Optional

from ipucnn.core.checks import OK, PROBLEM, WARNING, Check
from ipucnn.core.errors import IpucnnError
from ipucnn.core.registry.records import BackendSpec
from ipucnn.core.registry.registry import Registry, Row, State, registry

_EXACT = 1e-3
"""Largest difference of an output that is of the order of 1, in single precision."""

_REINSTALL = "pip install --force-reinstall torch torchvision"


def deep_checks(plugins: Optional[Registry]) -> List[Check]:
    """Return the checks of torch and of the engines of a registry; None is that of the process."""
    checks = [_tried("convolution in single precision", lambda: _convolution(half=False)),
              _tried("convolution in half precision", lambda: _convolution(half=True)),
              _tried("CUDA", cuda), _tried("JPEG decoding", _decode),
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
"""Where Linux describes the NVIDIA driver."""


def cuda() -> Check:
    """Return the GPUs that torch can use, or why it can use none."""
    import torch

    if torch.version.hip:
        return _gpus(torch) if torch.cuda.is_available() else Check(
            "CUDA", OK, f"torch is built for ROCm {torch.version.hip}, and finds no GPU")
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
    """Return the GPUs, with the versions that results depend on."""
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    libraries = f"ROCm {torch.version.hip}" if torch.version.hip else \
        f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return Check("CUDA", OK, f"{', '.join(names)}; {libraries}")


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
