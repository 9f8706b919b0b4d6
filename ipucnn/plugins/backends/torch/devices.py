"""Selects the torch device and its half-precision type."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import FrozenSet, Optional

import torch  # a backend's engine is loaded when it is used

from ipucnn.core.errors import UsageError
from ipucnn.core.machine import usable_cores


@dataclass(frozen=True)
class Device:
    """A device and its arithmetic.

    Attributes:
        place: the torch device.
        name: in words, for results.
        half: the half-precision type of weights on it.
        half_arithmetic: the type in which half precision is computed on it.
    """

    place: torch.device
    name: str
    half: torch.dtype
    half_arithmetic: torch.dtype

    @property
    def emulates_half(self) -> bool:
        """Whether computation with half-precision weights uses single precision."""
        return self.half is not self.half_arithmetic


def pick(wanted: Optional[str] = None, local_index: Optional[int] = None) -> Device:
    """Return the device called `wanted`, or the best one.

    Args:
        wanted: `cpu`, `cuda` or `cuda:N`; the best one when None.
        local_index: number of this process among those of its host that take a GPU each.

    Raises:
        UsageError: there is no such device here.
    """
    if wanted is None:
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and local_index is not None:
        wanted = f"cuda:{local_index}"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cpu":
        return _cpu()
    if device.type != "cuda":
        raise UsageError(f"the torch backend has no device {wanted!r}",
                         "devices: cpu, cuda, cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        raise UsageError(f"there is no device {wanted!r} here: {count} CUDA devices are usable",
                         "use '--device cpu', or check the driver with 'ipucnn doctor --deep'")
    return Device(device, torch.cuda.get_device_name(device), torch.float16, torch.float16)


def _cpu() -> Device:
    native = bool(cpu_features() & {"avx512_bf16", "amx_bf16", "bf16"})
    # Without such instructions every step converts, and is several times slower than in single
    # precision. Weights are rounded to bfloat16 all the same, so results are comparable.
    arithmetic = torch.bfloat16 if native else torch.float32
    return Device(torch.device("cpu"), f"CPU, {usable_cores()} cores, {_vector_unit()}",
                  torch.bfloat16, arithmetic)


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> FrozenSet[str]:
    """Return the instruction-set flags that Linux lists; empty elsewhere."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.lower().startswith(("flags", "features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def _vector_unit() -> str:
    features = cpu_features()
    for flag, name in (("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512 BF16"), ("avx512f", "AVX-512"),
                       ("avx2", "AVX2"), ("sve", "SVE"), ("asimd", "NEON")):
        if flag in features:
            return name
    return platform.machine() or "unknown"
