"""Inference through `ipucnn run`'s sessions against plain eager torchvision, in one process."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Callable, Dict, List

import torch
import torchvision
from common import save, summary

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.machine import usable_cores
from ipucnn.models.build import create_model
from ipucnn.plugins.backends.torch.engine import TorchBackend
from ipucnn.plugins.backends.torch.options import TorchOptions

VARIANTS = {
    "full": ("32.32", False),
    "half": ("16.16", False),
    "full, compiled": ("32.32", True),
    "half, compiled": ("16.16", True),
}


MULTIPLY_ADDS = 4_089_184_256
"""Of ResNet-50 on one image of 224 pixels; `ipucnn show model resnet50`."""


def matmul_gflops(size: int = 2048) -> float:
    """Return the speed of one large float32 matrix product: what convolutions can hope for."""
    a = torch.ones(size, size)
    started = time.perf_counter()
    a @ a
    return 2 * size**3 / (time.perf_counter() - started) / 1e9


def main() -> None:
    """Measure images per second of each variant, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=16)
    arguments = parser.parse_args()
    batch = arguments.batch_size
    torch.set_num_threads(usable_cores())

    plain = torchvision.models.resnet50().eval()
    images = torch.randn(batch, 3, 224, 224)

    def eager() -> None:
        with torch.no_grad():
            plain(images)

    calls: Dict[str, Callable[[], object]] = {"plain eager torchvision, fp32": eager}
    facts, compile_seconds = {}, {}
    for name, (precision, compiled) in VARIANTS.items():
        plan = ExecutionPlan(micro_batch=batch, precision=precision, synthetic=True, seed=0)
        session = TorchBackend(TorchOptions(compile=compiled)).inference(
            create_model("resnet50", weights="random").module, plan, 224)
        compile_seconds[name] = round(session.compile(), 2)
        facts[name] = session.facts
        calls[name] = lambda session=session: session(None)

    rates: Dict[str, List[float]] = {name: [] for name in calls}
    gflops: List[float] = []
    for turn in range(arguments.rounds + 1):
        gflops.append(matmul_gflops())
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if turn:
                rates[name].append(batch / (time.perf_counter() - started))
    base = rates["plain eager torchvision, fp32"]
    save("inference", {
        "what": "ResNet-50, synthetic data, images per second", "batch_size": batch,
        "rounds": arguments.rounds,
        "images_per_second": {name: summary(values) for name, values in rates.items()},
        "ratio_to_plain": {name: summary([a / b for a, b in zip(rates[name], base)])
                           for name in VARIANTS},
        "float32_matmul_gflops": summary(gflops),
        "images_per_second_at_the_speed_of_matmul": round(
            statistics.median(gflops) / (2 * MULTIPLY_ADDS / 1e9), 2),
        "compile_seconds": compile_seconds, "sessions": facts,
    })


if __name__ == "__main__":
    main()
