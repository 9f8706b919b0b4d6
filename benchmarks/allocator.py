"""What kept memory and huge pages are worth: the same commands with and without them.

The processes alternate. Without them, the environment sets a parameter of glibc's allocator to its
default, so that `ipucnn` does not change the others (`ipucnn.core.allocator`).
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
from typing import Dict, List

from common import save

NETWORKS = ("resnet18", "mobilenet")

JOBS = {
    "training": ["train", "--data", "synthetic", "--no-validation", "--no-checkpoints",
                 "--epochs", "2", "--iterations", "10", "--no-report"],
    "inference, torch": ["run", "--backend", "torch", "--data", "synthetic", "--weights", "random",
                         "--iterations", "30", "--no-tune"],
    "inference, openvino": ["run", "--backend", "openvino", "--data", "synthetic", "--weights",
                            "random", "--iterations", "60", "--no-tune"]}

DEFAULT = {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}


def rate(words: List[str], environment: Dict[str, str]) -> float:
    """Return the images per second of a command."""
    with tempfile.TemporaryDirectory() as folder:  # a training writes its log there
        done = subprocess.run(
            [sys.executable, "-m", "ipucnn", *words, "--batch-size", "16", "--precision", "full",
             "--json", "--progress", "off"], cwd=folder, env={**os.environ, **environment},
            check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)
    if words[0] == "train":  # without the first epoch, which fills the memory
        return float(re.findall(r"Throughput of the epoch: *([0-9.]+)", done.stderr)[-1])
    return float(json.loads(done.stdout)["compute_throughput"]["mean"])


def main() -> None:
    """Measure the jobs and write the rates and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    found = {}
    for network in NETWORKS:
        for job, words in JOBS.items():
            rates: Dict[str, List[float]] = {"kept": [], "default": []}
            for _ in range(arguments.rounds):
                for name, environment in (("kept", {}), ("default", DEFAULT)):
                    rates[name].append(round(rate([*words, "--model", network], environment), 2))
            kept, default = (statistics.median(rates[name]) for name in ("kept", "default"))
            found[f"{network}, {job}"] = {"images_per_second": rates,
                                          "ratio": round(kept / default, 3)}
            print(network, job, rates, f"{kept / default:.2f}", flush=True)
    save("allocator", {"what": "images per second, micro-batch 16, in full precision; medians of "
                       f"{arguments.rounds} alternating processes", "results": found})


if __name__ == "__main__":
    main()
