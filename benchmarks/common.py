"""What every benchmark does: environment, medians, a committed file."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any, Dict, List

from ipucnn.core.environment import describe
from ipucnn.plugins.backends.torch.devices import cpu_features

RESULTS = Path(__file__).resolve().parent / "results"
VECTOR_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "sve", "bf16")


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
