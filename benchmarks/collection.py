"""How long collections of cyclic garbage take at the start and at the end of a process.

The same commands, as they are and without `ipucnn.core.collection`, in turn; with `--backend
torch`, which has most objects, and with the other backends.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

from common import Measured, measured, save, summary

PROGRAM = """
import sys
from ipucnn.core import collection
if sys.argv.pop(1) == "usual":
    collection.collect_rarely = lambda: None
from ipucnn.__main__ import main
sys.exit(main())
"""

BACKENDS = ("torch", "onnxruntime", "openvino")


def main() -> None:
    """Measure the classification of one photograph."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "IPUCNN_CACHE": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package is compiled
        subprocess.run([sys.executable, "-m", "ipucnn", "data", "shapes", "--out",
                        f"{folder}/shapes", "--per-class", "1", "--size", "500"], check=True,
                       stdout=subprocess.DEVNULL)
        photo = next(Path(folder, "shapes").rglob("*.jpg"))
        found: Dict[str, Dict[str, List[Measured]]] = {}
        for turn in range(given.rounds + 1):
            for backend in BACKENDS:
                for how in ("rare", "usual"):
                    once = measured([
                        sys.executable, "-c", PROGRAM, how, "run", "--data-dir", str(photo),
                        "--model", "resnet50", "--weights", "random", "--backend", backend,
                        "--progress", "off"], environment)
                    if turn:  # the first fills the caches
                        found.setdefault(backend, {}).setdefault(how, []).append(once)
    save("collection", {
        "what": "one photograph, resnet50, whole processes in turn", "rounds": given.rounds,
        "seconds": {backend: {how: summary([one.seconds for one in many], 3)
                              for how, many in both.items()} for backend, both in found.items()},
        "seconds_less": {backend: summary([
            usual.seconds - rare.seconds for rare, usual in zip(both["rare"], both["usual"])], 3)
            for backend, both in found.items()}})


if __name__ == "__main__":
    main()
