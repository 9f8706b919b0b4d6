"""What the options that `ipucnn run --tune` varies are worth, by network and micro-batch.

Each backend is measured alone, its variants in turn (`ipucnn.inference.tuning`), so that no
candidate is dropped for another backend.
"""

from __future__ import annotations

import argparse
import os
from typing import Any, Dict

from common import save

from ipucnn.core.options.building import build
from ipucnn.core.registry.registry import registry
from ipucnn.inference.options import RunOptions
from ipucnn.inference.tuning import measure
from ipucnn.plugins.backends.onnxruntime import engine

NETWORKS = ("mobilenet", "efficientnet-b0", "resnet18", "resnet50")


def main() -> None:
    """Measure the variants and write the rates, with the load of the machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--backends", nargs="+", default=["openvino", "onnxruntime"])
    arguments = parser.parse_args()
    engine._FEW = 0  # also calls that threads share, which '--tune' leaves out on few threads
    rates: Dict[str, Any] = {}
    for network in NETWORKS:
        for batch in arguments.batches:
            for backend in arguments.backends:
                options = build(RunOptions, {
                    "model": network, "weights": "random", "batch_size": batch,
                    "backend": backend, "precision": "full"})
                found = {one.flags: round(one.images_per_second, 1)
                         for one in measure(options, registry()).rates}
                rates[f"{network}, {batch}, {backend}"] = found
                print(network, batch, backend, found, f"load {os.getloadavg()[0]:.1f}", flush=True)
    save("variants", {"what": "images per second in full precision, medians of rounds of 0.2 s "
                      "in turn", "load_at_the_end": os.getloadavg()[0],
                      "images_per_second": rates})


if __name__ == "__main__":
    main()
