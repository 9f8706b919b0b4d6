"""Start-up, checkpoints, memory and the order of an epoch by number of ranks.

Ranks that this machine can run are processes. Hundreds are simulated part by part, each part as one
rank executes it: the share of an epoch's order, and the checkpoint that the writer makes of the
buffers of all replicas. What a network adds is computed from the assumptions in the result.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any, Dict, List

import torch
import torchvision
from common import save, summary

from ipucnn.core.execution.launching import joined
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.options.building import build
from ipucnn.core.progress import Listener
from ipucnn.data import ImageDataset
from ipucnn.training.checkpoints.checkpoint import Checkpoint, Position
from ipucnn.training.checkpoints.checkpoint import save as save_checkpoint
from ipucnn.training.feed import own_part
from ipucnn.training.job import train
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.trainer import Trainer

PROCESSES = (1, 2, 4)
RANKS = (1, 8, 64, 512)
SAMPLES = 1_000_000
GIGABYTES_PER_SECOND, LATENCY = 1.0, 0.0002
"""Assumed bandwidth into the writer, and seconds per message."""


class FirstStep(Listener):
    """Notes when the first weight update is done."""

    at = 0.0

    def stop(self) -> str:
        """Note the time; called after every update."""
        self.at = self.at or time.time()
        return ""


def worker(begun: float, out: str) -> None:
    """Measure in one of the processes; the first one writes the result."""
    count = int(os.environ["WORLD_SIZE"])
    started = time.time()
    instances = joined()
    connected, seconds = time.time(), []
    original, listener = Trainer._save, FirstStep()

    def timed(self: Any, *given: Any, **named: Any) -> None:
        start = time.perf_counter()
        original(self, *given, **named)
        seconds.append(time.perf_counter() - start)

    Trainer._save = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        train(build(TrainOptions, {
            "model": "resnet18", "data": "synthetic", "input_size": 64, "backend": "torch",
            "batch_size": 4, "replicas": count, "precision": "full", "epoch": 5, "iterations": 2,
            "momentum": 0.9, "checkpoint_path": f"{folder}/{instances.index}",
            "validation_mode": "none"}), listener=listener)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peaks = instances.gather(peak)
    if not instances.index:
        Path(out).write_text(json.dumps({
            "python_seconds": started - begun, "connecting_seconds": connected - started,
            "first_update_seconds": listener.at - begun, "checkpoint_seconds": seconds,
            "peak_bytes": peaks}))


def measured(count: int) -> Dict[str, Any]:
    """Return the figures of a training by some processes."""
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "found.json")
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone",
             f"--nproc-per-node={count}", __file__, "--worker", out, "--begun", str(time.time())],
            check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found = json.loads(Path(out).read_text())
    return {"start": {name: round(found[f"{name}_seconds"], 2)
                      for name in ("python", "connecting", "first_update")},
            "checkpoint_seconds": summary(found["checkpoint_seconds"], 3),
            "peak_megabytes": summary([peak / 1e6 for peak in found["peak_bytes"]], 0)}


class Numbers(ImageDataset):
    """A dataset of which only the number of images matters."""

    def __len__(self) -> int:
        return SAMPLES

    def image(self, index: int) -> torch.Tensor:
        """Return no image: only the order is used."""
        raise NotImplementedError(index)

    def name(self, index: int) -> str:
        """Return the number."""
        return str(index)


def ordered(ranks: int) -> Dict[str, Any]:
    """Return what the order of an epoch costs one of the ranks: the last one."""
    plan = ExecutionPlan(micro_batch=8, replicas=ranks, instances=ranks, training=True)
    start = time.perf_counter()
    own_part(Numbers().order(7, 3), plan, ranks - 1)
    seconds = time.perf_counter() - start
    tracemalloc.start()
    own = own_part(Numbers().order(7, 3), plan, ranks - 1)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"seconds": round(seconds, 3), "samples": len(own),
            "kept_megabytes": round(kept / 1e6, 2), "peak_megabytes": round(peak / 1e6, 2)}


def written(ranks: int, folder: str) -> Dict[str, Any]:
    """Return what a checkpoint of ResNet-50 costs the writer, with the buffers of all replicas."""
    model = torchvision.models.resnet50()
    weights = model.state_dict()
    momenta = [torch.zeros_like(value) for value in model.parameters()]
    buffers = [{name: value.clone() for name, value in model.named_buffers()}
               for _ in range(ranks)]
    gathered = sum(value.numel() * value.element_size() for value in buffers[0].values())
    seconds = []
    for number in range(2):
        start = time.perf_counter()
        path = save_checkpoint(Checkpoint(
            "resnet50", "d", Position(number), weights,
            session={"optimizer": momenta, "replica_buffers": buffers}), Path(folder))
        seconds.append(time.perf_counter() - start)
        size = path.stat().st_size
        path.unlink()
    received = (ranks - 1) * gathered
    return {"file_megabytes": round(size / 1e6, 1), "save_seconds": summary(seconds, 2),
            "received_megabytes": round(received / 1e6, 2),
            "gather_seconds_computed": round(
                received / 1e9 / GIGABYTES_PER_SECOND + (ranks - 1) * LATENCY, 3)}


def main() -> None:
    """Measure, simulate, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", metavar="FILE")
    parser.add_argument("--begun", type=float, default=0.0)
    parser.add_argument("--machine", default="nothing else runs on it")
    given = parser.parse_args()
    if given.worker:
        worker(given.begun, given.worker)
        return
    torch.set_num_threads(1)
    simulated: List[Dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for ranks in RANKS:
            simulated.append({"ranks": ranks, "order": ordered(ranks),
                              "checkpoint": written(ranks, folder)})
    save("scale_ranks", {
        "what": "ResNet-18 at 64 pixels by processes of torch.distributed (Gloo), checkpoints with "
                "momentum; simulated: the order of an epoch of a million samples, and the "
                "checkpoint of ResNet-50 with the buffers of one replica per rank",
        "assumptions": {
            "simulated ranks": "each part runs alone, as one rank runs it, on this machine",
            "gather": f"{GIGABYTES_PER_SECOND} GB/s into the writer, {LATENCY * 1e3} ms per rank",
            "machine": given.machine},
        "processes": {str(count): measured(count) for count in PROCESSES},
        "simulated": simulated})


if __name__ == "__main__":
    main()
