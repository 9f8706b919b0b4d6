"""Listings and a built-in run with and without the networks of timm (`examples/ipucnn-timm`)."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Dict, List

from common import save, summary

from ipucnn.testing.distributions import write_distribution

SOURCE = Path(__file__).resolve().parents[1] / "examples/ipucnn-timm/src/ipucnn_timm"
CALLS = {"list-plugins": ["list-plugins"], "show sgd": ["show", "sgd"],
         "list-plugins optimizers": ["list-plugins", "optimizers"]}


def seconds(command: List[str], folder: Path) -> float:
    """Return the processor time of a command line in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("IPUCNN_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path.cwd()), str(folder)])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "ipucnn", *command], env=environment, check=True,
                   stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure in turn, so that a slow moment of the machine concerns both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as temporary:
        folders = {"without": Path(temporary, "without"), "with": Path(temporary, "with")}
        for folder in folders.values():  # the requirement is looked for, and not imported
            (folder / "timm").mkdir(parents=True)
            (folder / "timm" / "__init__.py").write_text("raise SystemExit('imported')")
        write_distribution(
            folders["with"], "ipucnn-timm", {f"ipucnn_timm/{path.name}": path.read_text()
                                             for path in (*SOURCE.glob("*.py"),
                                                          SOURCE / "networks.json")},
            {"models.timm": "ipucnn_timm.plugin"})
        found: Dict[str, Dict[str, List[float]]] = {
            call: {name: [] for name in folders} for call in CALLS}
        for turn in range(rounds + 1):
            for call, command in CALLS.items():
                for name, folder in folders.items():
                    taken = seconds(command, folder)
                    if turn:  # the first writes bytecode and fills the file cache
                        found[call][name].append(taken)
    save("timm_records", {
        "what": "processor seconds of a command with and without the example ipucnn-timm",
        "rounds": rounds,
        "seconds": {call: {name: summary(values) for name, values in one.items()}
                    for call, one in found.items()},
        "ratio": {call: summary([a / b for a, b in zip(one["with"], one["without"])])
                  for call, one in found.items()},
        "budget": {"ratio of list-plugins": 1.5}})


if __name__ == "__main__":
    main()
