"""Start-up of the command line against `python -c "import typer"`, which it cannot beat."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time

from common import save, summary

COMMANDS = {
    "import typer": [sys.executable, "-c", "import typer"],
    "ipucnn --help": [sys.executable, "-m", "ipucnn", "--help"],
    "ipucnn list-plugins": [sys.executable, "-m", "ipucnn", "list-plugins"],
}


def main() -> None:
    """Measure processor time and wall time of whole processes, in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    wall = {name: [] for name in COMMANDS}
    processor = {name: [] for name in COMMANDS}
    for turn in range(rounds + 1):
        for name, command in COMMANDS.items():
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
            seconds = time.perf_counter() - started
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if turn:  # the first writes bytecode and fills the file cache
                wall[name].append(seconds)
                processor[name].append(after.ru_utime + after.ru_stime
                                       - before.ru_utime - before.ru_stime)
    base_wall, base_cpu = wall["import typer"], processor["import typer"]
    save("startup", {
        "what": "seconds of whole processes, in turn", "rounds": rounds,
        "wall": {name: summary(values) for name, values in wall.items()},
        "processor": {name: summary(values) for name, values in processor.items()},
        "ratio_to_import_typer": {
            name: {"wall": summary([a / b for a, b in zip(wall[name], base_wall)]),
                   "processor": summary([a / b for a, b in zip(processor[name], base_cpu)])}
            for name in COMMANDS if name != "import typer"},
        "budget": 2.5,
    })


if __name__ == "__main__":
    main()
