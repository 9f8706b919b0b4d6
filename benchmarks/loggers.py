"""What loggers cost a training: none, each one alone, and all.

A small network on drawn shapes, whose steps are short, so that loggers cost more of it than of
others; a row of metrics every 10 steps and a validation with a confusion matrix after each epoch.
The trainings of a round follow one another in changing order, each in a process of its own. Times
are those from the first step to the last validation, without imports, start and end:

- `calls`: seconds that the training waits for its loggers, as a share of its time. This is what the
  rule is about: less than 1 %.
- `cpu`: processor seconds of the process, threads of loggers included, of the child processes that
  have ended, and of a service that a logger started.
- `wall`: seconds; the noise of other work on the machine is in it.
- `end`: seconds after the last validation, in which loggers send what waits.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

from common import save, summary

LOGGERS = ("files", "tensorboard", "mlflow", "wandb")
PER_CLASS, SIZE, EPOCHS, STEPS_PER_ROW = 128, 64, 6, 10


def main() -> None:
    """Train with and without loggers in turn, and write what they cost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        print(json.dumps(trained(given.child, given.epochs)))
        return
    installed = [name for name in LOGGERS if name == "files" or importlib.util.find_spec(name)]
    kinds: Dict[str, List[str]] = {
        "none": [], **{name: [name] for name in installed}, "all": installed}
    measured: Dict[str, List[Dict[str, float]]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "ipucnn", "data", "shapes", "--out", f"{folder}/photos",
             "--size", str(SIZE), "--per-class", str(PER_CLASS), "--validation-per-class", "16"],
            check=True, stdout=sys.stderr)
        for number in range(given.rounds):
            order = list(kinds)
            for name in order[number % len(order):] + order[:number % len(order)]:
                measured[name].append(measured_in_child(kinds[name], given.epochs, folder))
                print(name, measured[name][-1], file=sys.stderr)
    save("loggers", {
        "what": f"resnet8-cifar on {8 * PER_CLASS} images of {SIZE} pixels, {given.epochs} epochs, "
                f"a row every {STEPS_PER_ROW} steps",
        "rounds": given.rounds, "loggers": {name: figures(runs, measured["none"])
                                            for name, runs in measured.items()}})


def figures(runs: List[Dict[str, float]], without: List[Dict[str, float]]) -> Dict[str, Any]:
    """Return the summaries of one kind; differences are those within a round, in per cent."""
    def more(name: str) -> Dict[str, float]:
        return summary([100 * (run[name] / plain[name] - 1)
                        for run, plain in zip(runs, without)], 2)

    return {**{f"{name}_seconds": summary([run[name] for run in runs], 3)
               for name in ("wall", "cpu", "calls", "end")},
            "calls_percent": summary([100 * run["calls"] / run["wall"] for run in runs], 3),
            "cpu_more_percent": more("cpu"), "wall_more_percent": more("wall")}


def measured_in_child(loggers: List[str], epochs: int, folder: str) -> Dict[str, float]:
    """Train in a process of its own and return its figures."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        os.symlink(f"{folder}/photos", f"{place}/photos")
        child = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--epochs", str(epochs), "--child",
             *loggers], check=True, cwd=place, stdout=subprocess.PIPE,
            env={**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"})
    result: Dict[str, float] = json.loads(child.stdout.decode().strip().splitlines()[-1])
    return result


def trained(loggers: List[str], epochs: int) -> Dict[str, float]:
    """Train here, and return wall, CPU and logger seconds."""
    import ipucnn
    from ipucnn.training.records.run_files import FileRecords

    spent: Dict[str, float] = {"calls": 0.0}
    marks: Dict[str, Any] = {}

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*args: Any) -> Any:
            begun = time.perf_counter()
            try:
                return call(*args)
            finally:
                spent["calls"] += time.perf_counter() - begun

        return timing

    for name in ("row", "confusion", "samples", "progress", "best", "evidence"):
        setattr(FileRecords, name, timed(getattr(FileRecords, name)))

    def progress(status: Any) -> None:
        if status.phase == "training" and "first" not in marks:
            marks["first"] = time.perf_counter(), cpu()

    def row(_: Dict[str, Any]) -> None:
        marks["last"] = time.perf_counter(), cpu()

    ipucnn.train(model="resnet8-cifar", input_size=SIZE, data_dir="photos", batch_size=16,
                 epoch=epochs, steps_per_log=STEPS_PER_ROW, checkpoint_path="kept", no_report=True,
                 checkpoint_save_freq=epochs, seed=1, logger=loggers, progress=progress,
                 callbacks=row)
    (first, cpu_first), (last, cpu_last) = marks["first"], marks["last"]
    return {"wall": last - first, "cpu": cpu_last - cpu_first, "calls": spent["calls"],
            "end": time.perf_counter() - last}


def cpu() -> float:
    """Return processor seconds of this process and of all that it has started."""
    own = os.times()
    seconds = own.user + own.system + own.children_user + own.children_system
    ticks = os.sysconf("SC_CLK_TCK")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                seconds += (int(fields[11]) + int(fields[12])) / ticks
    return seconds


if __name__ == "__main__":
    main()
