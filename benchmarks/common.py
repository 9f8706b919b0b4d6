"""What every benchmark does: environment, medians, a committed file."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple

from ipucnn.core.environment import describe
from ipucnn.plugins.backends.torch.devices import cpu_features

RESULTS = Path(__file__).resolve().parent / "results"
VECTOR_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd",
                "sve", "bf16")


class Measured(NamedTuple):
    """What one process took; its processors' seconds are with those of its children."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def summary(values: List[float], digits: int = 4) -> Dict[str, float]:
    """Return median, minimum and maximum, rounded to `digits` decimals."""
    return {"median": round(statistics.median(values), digits),
            "min": round(min(values), digits), "max": round(max(values), digits)}


def save(name: str, measured: Dict[str, Any], script: str = "") -> None:
    """Write `results/<name>.json` and print it; `script` is what measured it, if not `name`."""
    print(write(name, measured, script))


def write(name: str, measured: Dict[str, Any], script: str = "") -> str:
    """Write `results/<name>.json`, with its command and the environment, and return its text."""
    environment = describe()
    environment["command"] = ["python", f"benchmarks/{script or name}.py", *sys.argv[1:]]
    environment["vector_flags"] = [flag for flag in VECTOR_FLAGS if flag in cpu_features()]
    text = json.dumps({**measured, "environment": environment}, indent=2) + "\n"
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return text


def measured(command: List[str], environment: Dict[str, str]) -> Measured:
    """Run a command and return what it took."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env=environment)
    peak = 0
    # `ru_maxrss` of a child begins with what its parent had when it was started
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        peak = max(peak, _peak_kib(process.pid))
        time.sleep(0.005)
    seconds = time.perf_counter() - started
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command} failed: {status}")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, peak / 1024)


def _peak_kib(process: int) -> int:
    """Return the peak of a process's resident memory so far; 0 where it has just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
