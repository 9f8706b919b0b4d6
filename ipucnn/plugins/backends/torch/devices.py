"""Selects the torch device and its half-precision type."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import FrozenSet, Optional, Sequence

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
        half_training: the half-precision type of training, where it is another one.
    """

    place: torch.device
    name: str
    half: torch.dtype
    half_arithmetic: torch.dtype
    half_training: Optional[torch.dtype] = None

    @property
    def emulates_half(self) -> bool:
        """Whether computation with half-precision weights uses single precision."""
        return self.half is not self.half_arithmetic

    def for_training(self) -> Device:
        """Return the device with the half precision of training."""
        kind = self.half_training
        return self if kind is None else replace(self, half=kind, half_arithmetic=kind)


def pick(wanted: Optional[str] = None) -> Device:
    """Return the device called `wanted`, or the best usable one.

    Raises:
        UsageError: there is no such device here, or it cannot be used; or this process was forked
            from one that has used CUDA.
    """
    if wanted is None:
        return _best()
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
    _refuse_fork()
    return _cuda(device)


def _best() -> Device:
    """Return the current CUDA device, by default the first one, if it is usable, else the CPU.

    Raises:
        UsageError: this process was forked from one that has used CUDA.
    """
    if torch.cuda.is_available():
        _refuse_fork()  # which would compute on the CPU instead, without a note
        with suppress(UsageError):  # 'ipucnn doctor --deep' reports the reason
            return _cuda(torch.device("cuda"))
    return _cpu()


def _refuse_fork() -> None:
    if torch.cuda._is_in_bad_fork():
        raise UsageError("CUDA cannot be used in a process that was forked from one that has "
                         "used it", "start processes with the method 'spawn' or 'forkserver' "
                         "of multiprocessing and load models there, or use '--device cpu'")


def _cuda(device: torch.device) -> Device:
    """Return a CUDA device.

    Training in half precision uses bfloat16 if the card supports it (compute capability 8): its
    range is that of float32, so that gradients do not overflow. Inference uses float16, whose
    fraction has three more bits.

    Raises:
        UsageError: this build of torch has no programs for the card, or the driver fails.
    """
    try:
        if device.index is None:  # that would be the current one of each thread, in each call
            device = torch.device("cuda", torch.cuda.current_device())
        name = torch.cuda.get_device_name(device)
        major, minor = torch.cuda.get_device_capability(device)
        built_for = torch.cuda.get_arch_list()
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"CUDA device {device.index or 0} cannot be used: "
                         f"{(str(error).strip().splitlines() or ['unknown'])[0]}",
                         "check the driver with 'nvidia-smi', or use '--device cpu'") from error
    # builds for AMD's cards list names of another kind (gfx90a)
    if built_for and not torch.version.hip and not _runs_on(built_for, major, minor):
        raise UsageError(
            f"torch {torch.__version__} has no programs for {name} (sm_{major}{minor}), only for "
            + ", ".join(built_for), "install a build of torch for this card, or use "
            "'--device cpu'")
    return Device(device, name, torch.float16, torch.float16,
                  torch.bfloat16 if major >= 8 else torch.float16)


def _runs_on(built_for: Sequence[str], major: int, minor: int) -> bool:
    """Return whether a card runs programs of these architectures.

    Machine code (``sm_80``) runs on cards of the same generation that are not older, intermediate
    code (``compute_80``) on all that are not older. Source: CUDA C++ programming guide, "Binary
    compatibility" and "PTX compatibility".
    """
    for architecture in built_for:
        kind, _, digits = architecture.rstrip("af").partition("_")
        if not digits.isdecimal() or len(digits) < 2:
            continue
        of_major, of_minor = int(digits[:-1]), int(digits[-1])
        if (of_major, of_minor) <= (major, minor) and (kind == "compute" or of_major == major):
            return True
    return False


def _cpu() -> Device:
    native = bool(cpu_features() & {"avx512_bf16", "amx_bf16", "bf16"})
    # Without such instructions every step converts, and is several times slower than in single
    # precision. Weights are still rounded to bfloat16, so results are comparable.
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
