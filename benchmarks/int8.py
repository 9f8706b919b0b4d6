"""What 8-bit integers are worth with OpenVINO: images per second against single and half precision.

Each round runs the precisions in turn, on the same photographs; a first round quantises and fills
the caches. Beside the ratio stand how far the answers agree with those of single precision, and the
seconds before the first image when the network is quantised and when it was kept. The answers of
random weights differ by so little that their agreement has no meaning: `--weights` takes others.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List

sys.path.insert(0, str(Path(__file__).resolve().parent / "data"))

from common import measured, save, summary
from images import photograph

NETWORKS = ("resnet50", "mobilenet", "efficientnet-b0")
PRECISIONS = ("full", "half", "int8")
IMAGES, BATCH = 128, 16


def of_network(network: str, weights: str, rounds: int, folder: Path) -> Dict[str, Any]:
    """Measure the precisions for a network."""
    environment = {**os.environ, "IPUCNN_CACHE": str(folder / "cache")}
    rates: Dict[str, List[float]] = {name: [] for name in PRECISIONS}
    begun: Dict[str, List[float]] = {"quantised": [], "kept": []}
    agreement: Any = None
    for turn in range(rounds + 1):
        for name in PRECISIONS:
            result = folder / "result.json"
            measured([
                sys.executable, "-m", "ipucnn", "run", "--model", network, "--weights", weights,
                "--backend", "openvino", "--precision", name, "--batch-size", str(BATCH),
                "--data-dir", str(folder / "photos"), "--progress", "off", "--result", str(result)],
                environment)
            found = json.loads(result.read_text())
            if name == "int8":
                agreement = found["session"]["quantisation"]
                begun["kept" if turn else "quantised"].append(found["compile_seconds"])
            if turn:
                rates[name].append(found["compute_throughput"]["mean"])
    return {
        "images_per_second": {name: summary(values, 1) for name, values in rates.items()},
        "times_single_precision": {name: summary([
            one / full for one, full in zip(rates[name], rates["full"])], 2)
            for name in ("half", "int8")},
        "compile_seconds": {name: summary(values, 2) for name, values in begun.items()},
        "quantisation": agreement}


def main() -> None:
    """Measure the networks, one after another."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--weights", default="random")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = folder / "photos"
        photos.mkdir()
        for number in range(IMAGES):
            (photos / f"{number:03d}.jpg").write_bytes(photograph(number))
        save("int8", {
            "what": f"images per second of the engine alone, batches of {BATCH}",
            "rounds": given.rounds,
            "networks": {network: of_network(network, given.weights, given.rounds, folder)
                         for network in given.networks}})


if __name__ == "__main__":
    main()
