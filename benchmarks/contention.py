"""Compares threads that sleep while they wait with threads that wait actively.

Each job is executed beside 0, 1, 2 ... other processes that only compute. Processes whose threads
wait actively and whose threads sleep alternate; the environment or an option sets which they do
(`ipucnn.core.contention` chooses it otherwise).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from typing import Dict, Iterator, List, Tuple

from common import save

TORCH = (({"OMP_WAIT_POLICY": "active"}, []), ({"OMP_WAIT_POLICY": "passive"}, []))
ONNXRUNTIME = (({}, ["--spinning"]), ({}, ["--no-spinning"]))
WAYS = ("active", "sleeping")

RUN = ["run", "--data", "synthetic", "--weights", "random", "--no-tune"]
TRAIN = ["train", "--data", "generated", "--no-validation", "--no-checkpoints", "--no-report",
         "--epochs", "2"]

JOBS = {
    "training, resnet18, 64 pixels, micro-batch 4": (
        [*TRAIN, "--model", "resnet18", "--input-size", "64", "--batch-size", "4",
         "--iterations", "20"], TORCH),
    "training, resnet18, 224 pixels, micro-batch 16": (
        [*TRAIN, "--model", "resnet18", "--batch-size", "16", "--iterations", "3"], TORCH),
    "inference, resnet18, torch": (
        [*RUN, "--backend", "torch", "--model", "resnet18", "--iterations", "60"], TORCH),
    "inference, resnet18, onnxruntime": (
        [*RUN, "--backend", "onnxruntime", "--model", "resnet18", "--iterations", "100"],
        ONNXRUNTIME)}

BUSY = "while True: sum(range(1000))"


@contextmanager
def others(count: int) -> Iterator[None]:
    """Keep processes running that only compute."""
    with ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            stack.callback(process.kill)
        yield


def rate(words: List[str], environment: Dict[str, str]) -> float:
    """Return the images per second of a command."""
    with tempfile.TemporaryDirectory() as folder:  # a training writes its log there
        done = subprocess.run(
            [sys.executable, "-m", "ipucnn", *words, "--precision", "full", "--json",
             "--progress", "off"], cwd=folder, env={**os.environ, **environment},
            check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    if words[0] == "train":  # without the first epoch, in which libraries and memory are set up
        return float(re.findall(r"Throughput of the epoch: *([0-9.]+)", done.stderr)[-1])
    return float(json.loads(done.stdout)["compute_throughput"]["mean"])


def compared(words: List[str], settings: Tuple, rounds: int) -> Dict[str, object]:
    """Return the rates of a job with active and with sleeping threads, and their ratio."""
    rates: Dict[str, List[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, (environment, options) in zip(WAYS, settings):
            rates[way].append(round(rate([*words, *options], environment), 2))
    active, sleeping = (statistics.median(rates[way]) for way in WAYS)
    return {"images_per_second": rates, "ratio": round(sleeping / active, 3)}


def main() -> None:
    """Measure the jobs, and write the rates and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--others", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    found: Dict[str, Dict[str, object]] = {}
    for job, (words, settings) in JOBS.items():
        found[job] = {}
        for count in arguments.others:
            with others(count):
                found[job][str(count)] = compared(words, settings, arguments.rounds)
            print(job, count, found[job][str(count)], flush=True)
    save("contention", {
        "what": "images per second by the number of other processes that compute: threads that "
        f"wait actively, and that sleep; medians of {arguments.rounds} alternating processes",
        "results": found})


if __name__ == "__main__":
    main()
