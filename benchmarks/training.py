"""Training with the whole of `ipucnn train` against a hand-written torch loop, in one process.

The hand-written loop is the fastest plain one: channels-last, fused SGD, and of float32 and
bfloat16 autocast whichever is faster here; it computes no accuracy, writes nothing and shows
nothing. `ipucnn` trains in the same precision with everything on: accuracy, progress bar, rows of
metrics, signals asked for. The two take turns of a few weight updates each, so that both meet the
same machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any, Callable, Dict, List, Tuple

import torch
import torchvision
from common import save, summary

import ipucnn.plugins.backends.torch.training as torch_training
from ipucnn.core.machine import usable_cores
from ipucnn.core.options.building import build
from ipucnn.terminal.progress import TrainProgress
from ipucnn.training.job import train
from ipucnn.training.options import TrainOptions

CASES = {"ResNet-50, 224 pixels, micro-batch 16": ("resnet50", 224, 16),
         "ResNet-18, 32 pixels, micro-batch 64": ("resnet18", 32, 64)}
TURN = {"resnet50": 1, "resnet18": 20}
"""Weight updates per turn."""


def hand_written(name: str, size: int, batch: int, autocast: bool) -> Callable[[], None]:
    """Return a plain loop's step."""
    model = getattr(torchvision.models, name)(num_classes=1000)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4,
                                fused=True)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.int64)
    compute = torch.autocast("cpu", torch.bfloat16, enabled=autocast)

    def step() -> None:
        with compute:
            loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


class Turns(TrainProgress):
    """Has the other loop take its turn after every few of our updates, and keeps the times."""

    def __init__(self, other: Callable[[], None], turn: int) -> None:
        super().__init__("on", summary=False)
        self._other, self._turn = other, turn
        self._count = 0
        self._begun = 0.0
        self._stepped = 0.0
        self.ours: List[float] = []
        self.theirs: List[float] = []
        self.shares: List[float] = []

    def stepped(self, seconds: float) -> None:
        """Add the time of an update itself, without what is around it."""
        self._stepped += seconds

    def stop(self) -> str:
        """Take a turn; this is asked after every update."""
        found = super().stop()
        self._count += 1
        if self._count % self._turn:
            return found
        now = time.perf_counter()
        if self._begun:
            self.ours.append(now - self._begun)
            self.shares.append(1 - self._stepped / (now - self._begun))
            started = time.perf_counter()
            for _ in range(self._turn):
                self._other()
            self.theirs.append(time.perf_counter() - started)
        self._stepped = 0.0
        self._begun = time.perf_counter()
        return found


def measure(name: str, size: int, batch: int, rounds: int, autocast: bool) -> Turns:
    """Train both for some rounds and return the times."""
    turn = TURN[name]
    turns = Turns(hand_written(name, size, batch, autocast), turn)
    step = torch_training.TorchTrainingSession.step

    def timed(session: Any, *arguments: Any) -> Any:
        started = time.perf_counter()
        result = step(session, *arguments)
        turns.stepped(time.perf_counter() - started)
        return result

    torch_training.TorchTrainingSession.step = timed  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder, turns:
            train(build(TrainOptions, {
                "model": name, "data": "synthetic", "input_size": size, "batch_size": batch,
                "precision": "16.32" if autocast else "full", "backend": "torch",
                "iterations": turn * (rounds + 2),
                "epoch": 1, "momentum": 0.9, "logs_per_epoch": 10, "log_dir": folder,
                "validation_mode": "none"}), listener=turns)
    finally:
        torch_training.TorchTrainingSession.step = step  # type: ignore[method-assign]
    return turns


def main() -> None:
    """Measure both cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(usable_cores())
    measured: Dict[str, Any] = {}
    for case, (name, size, batch) in CASES.items():
        images = batch * TURN[name]
        autocast, best = _best(name, size, batch)
        turns = measure(name, size, batch, rounds, autocast)
        measured[case] = {
            "hand-written loop": best,
            "images_per_second": {
                "ipucnn": summary([images / seconds for seconds in turns.ours]),
                "hand-written": summary([images / seconds for seconds in turns.theirs])},
            "ratio_to_hand_written": summary(
                [theirs / ours for ours, theirs in zip(turns.ours, turns.theirs)]),
            "share_of_metrics_logging_and_progress": summary(turns.shares)}
    save("training", {"what": "training, synthetic data, SGD with momentum", "rounds": rounds,
                      "cases": measured})


def _best(name: str, size: int, batch: int) -> Tuple[bool, str]:
    """Return whether autocast makes the plain loop faster, and the choice in words."""
    times = {}
    for autocast in (False, True):
        step = hand_written(name, size, batch, autocast)
        step()
        started = time.perf_counter()
        step()
        times[autocast] = time.perf_counter() - started
    return times[True] < times[False], (
        f"{'bfloat16 autocast' if times[True] < times[False] else 'float32'} "
        f"({times[False]:.2f} s an update in float32, {times[True]:.2f} s with autocast)")


if __name__ == "__main__":
    main()
