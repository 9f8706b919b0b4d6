"""The options of a training, built from saved values: once in a new process, and repeated."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Dict, List

from common import save, summary

TIMED = """
import json, statistics, time
from ipucnn.core.options.building import build
from ipucnn.core.registry.registry import registry
from ipucnn.training.options.train_options import TrainOptions

given = {"model": "resnet50", "optimizer": "adamw", "beta1": 0.8, "lr_schedule": "polynomial",
         "lr_power": 1.5, "backend": "torch", "data": "shapes", "batch_size": 16}
plugins = registry()
start = time.perf_counter()
options = build(TrainOptions, given, registry=plugins)
first = time.perf_counter() - start
saved = json.loads(json.dumps(options.as_dict()))
again = []
for _ in range(50):
    start = time.perf_counter()
    build(TrainOptions, saved, registry=plugins)
    again.append(time.perf_counter() - start)
print(json.dumps({"options": len(saved), "first": first * 1000,
                  "from saved values": statistics.median(again) * 1000}))
"""


def main() -> None:
    """Measure new processes, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    found: Dict[str, List[float]] = {}
    for _ in range(rounds):
        printed = subprocess.run([sys.executable, "-c", TIMED], stdout=subprocess.PIPE, check=True)
        for name, value in json.loads(printed.stdout.decode()).items():
            found.setdefault(name, []).append(value)
    options = found.pop("options")[0]
    save("options", {
        "what": "milliseconds to build the options of a training; the first build in a process "
                "also imports the plugins that are selected",
        "rounds": rounds, "saved values": options,
        "milliseconds": {name: summary(values) for name, values in found.items()},
        "budget": {"from saved values": 5.0},
    })


if __name__ == "__main__":
    main()
