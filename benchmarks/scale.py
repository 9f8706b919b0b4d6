"""Training on 1, 2 and 4 processes of one machine, against bare DistributedDataParallel.

Each process trains with the whole of `ipucnn train` and with a hand-written loop around torch's
DistributedDataParallel, in turns of a few weight updates, so that both meet the same machine. The
images of a weight update are the same number whatever the number of processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import torch
import torchvision
from common import save, summary
from torch.nn.parallel import DistributedDataParallel

from ipucnn.core.execution.launching import joined
from ipucnn.core.machine import usable_cores
from ipucnn.core.options.building import build
from ipucnn.core.progress import Listener
from ipucnn.training.job import train
from ipucnn.training.options.train_options import TrainOptions

COUNTS = (1, 2, 4)
SIZE, BATCH, TURN = 64, 32, 2
"""Pixels, images and weight updates of a turn."""


def bare(batch: int) -> Callable[[], None]:
    """Return the step of a plain loop; its processes are connected already."""
    model = torchvision.models.resnet18(num_classes=1000).to(
        memory_format=torch.channels_last).train()
    parallel = DistributedDataParallel(model) if int(os.environ["WORLD_SIZE"]) > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4,
                                fused=True)
    images = torch.randn(batch, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.int64)

    def step() -> None:
        torch.nn.functional.cross_entropy(parallel(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


class Turns(Listener):
    """Has the other loop take its turn after every few of our updates, and keeps the times."""

    def __init__(self, batch: int) -> None:
        self._batch, self._count, self._begun = batch, 0, 0.0
        self._other: Callable[[], None] = lambda: None
        self.ours: List[float] = []
        self.theirs: List[float] = []

    def stop(self) -> str:
        """Take a turn; called after every update."""
        if not self._count:
            self._other = bare(self._batch)
            self._other()
        self._count += 1
        if self._count % TURN == 0:
            now = time.perf_counter()
            if self._begun:
                self.ours.append(now - self._begun)
            started = time.perf_counter()
            for _ in range(TURN):
                self._other()
            self._begun = time.perf_counter()
            if self.ours:
                self.theirs.append(self._begun - started)
        return ""


def worker(rounds: int, out: str) -> None:
    """Measure in one of the processes."""
    count = int(os.environ["WORLD_SIZE"])
    begun = time.perf_counter()
    instances = joined()
    start = time.perf_counter() - begun
    turns = Turns(BATCH // count)
    with tempfile.TemporaryDirectory() as folder:
        train(build(TrainOptions, {
            "model": "resnet18", "data": "synthetic", "input_size": SIZE, "backend": "torch",
            "batch_size": BATCH // count, "replicas": count, "precision": "full", "epoch": 1,
            "iterations": TURN * (rounds + 2), "momentum": 0.9, "log_dir": folder,
            "validation_mode": "none"}), listener=turns)
    if not instances.index:
        Path(out).write_text(json.dumps({
            "ours": turns.ours, "theirs": turns.theirs, "connecting_seconds": start}))


def main() -> None:
    """Start the processes for each number of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--worker", metavar="FILE")
    given = parser.parse_args()
    if given.worker:
        worker(given.rounds, given.worker)
        return
    measured: Dict[str, Any] = {}
    images = BATCH * TURN
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "times.json")
            subprocess.run(
                [sys.executable, "-m", "torch.distributed.run", "--standalone",
                 f"--nproc-per-node={count}", __file__, "--worker", out,
                 f"--rounds={given.rounds}"], check=True,
                env={**os.environ, "OMP_NUM_THREADS": str(max(1, usable_cores() // count))})
            times = json.loads(Path(out).read_text())
        measured[f"{count} processes"] = {
            "images_per_second": {
                "ipucnn": summary([images / seconds for seconds in times["ours"]], 1),
                "bare": summary([images / seconds for seconds in times["theirs"]], 1)},
            "ratio_to_bare": summary(
                [theirs / ours for ours, theirs in zip(times["ours"], times["theirs"])], 3),
            "connecting_seconds": round(times["connecting_seconds"], 2)}
    one = measured["1 processes"]["images_per_second"]["ipucnn"]["median"]
    save("scale", {
        "what": f"training of ResNet-18 at {SIZE} pixels in float32, {BATCH} synthetic images per "
                "weight update, shared by the processes", "rounds": given.rounds,
        "cases": measured, "speed_up": {
            name: round(case["images_per_second"]["ipucnn"]["median"] / one, 2)
            for name, case in measured.items()}})


if __name__ == "__main__":
    main()
