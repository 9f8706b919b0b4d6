"""Trainings that meet faults must end as those that meet none: the same files, byte for byte.

Every training here is a real process. The reference of a kind of training is one that nothing
happens to. The others are killed at random moments, signalled, left without room or permission to
write, robbed of their folder, or find checkpoints damaged; they are continued with
`ipucnn restore` until they finish. A run has lost something when any checkpoint, or any figure of
`metrics.jsonl` and `metrics.csv` that is not of the clock, differs from the reference.

Full file systems are real ones of a few megabytes where this process may mount them (as root);
elsewhere those runs are left out, which the result states.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

from common import RESULTS, write

OPTIMIZERS = ("sgd", "sgd_combined", "adam", "adamw", "rmsprop", "rmsprop_tf", "lamb")
CLOCK = ("images_per_second", "data_wait_share")
EPOCHS = 2
TRAINING = ["train", "--data", "image_folder", "--data-dir", "../pictures", "--input-size", "32",
            "--precision", "full", "--batch-size", "4", "--gradient-accumulation", "2",
            "--device-iterations", "2", "--epoch", str(EPOCHS), "--lr", "0.01",
            "--logs-per-epoch", "4", "--checkpoint-save-steps", "1", "--keep-last", "2",
            "--mixup-alpha", "0.2", "--cutmix-lambda-low", "0.3", "--cutmix-lambda-high", "0.9",
            "--ema-decay", "0.9", "--validation-mode", "during", "--validation-frequency", "1",
            "--keep-best", "--dataloader-worker", "3", "--progress", "off",
            "--checkpoint-path", "c"]
RESTORE = ["restore", "--checkpoint-path", "c", "--progress", "off"]
SECONDS = 300
FILE_SYSTEM = "192m"
MEMORY = Path("/dev/shm")
"""Where the runs have their folders, if there is such a file system."""


class Lost(Exception):
    """A training did not do what it must."""


def start(folder: Path, argv: Sequence[str]) -> subprocess.Popen[str]:
    """Start `ipucnn` in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "ipucnn", *argv], cwd=str(folder), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, universal_newlines=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(process: subprocess.Popen[str], *codes: int) -> str:
    """Wait for a process and return its output; raise `Lost` on another exit code."""
    try:
        _, output = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Lost(f"hangs: {process.args}") from None
    if process.returncode not in codes or "Traceback" in output:
        raise Lost(f"exit code {process.returncode}: {output[-600:]}")
    return output


def next_command(folder: Path, extra: Sequence[str]) -> List[str]:
    """Return what a user would type now: go on where there are checkpoints, else begin."""
    return RESTORE if list(folder.glob("c/*.pt")) else [*TRAINING, *extra]


def remains(folder: Path) -> Dict[str, Any]:
    """Return everything that a training leaves behind, without what the clock wrote."""
    here = folder / "c"
    rows = [json.loads(line) for line in (here / "metrics.jsonl").read_text().splitlines()]
    with (here / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    for row in [*rows, *table]:
        for name in CLOCK:
            row.pop(name, None)
    return {"rows": rows, "table": table, "best": json.loads((here / "best.json").read_text()),
            "files": {path.name: path.read_bytes() for path in here.glob("*.pt")},
            "left over": [path.name for path in here.glob(".*")]}


def compare(folder: Path, reference: Dict[str, Any]) -> None:
    """Raise `Lost` when a training left anything else than the reference."""
    found = remains(folder)
    for what, expected in reference.items():
        if found[what] != expected:
            raise Lost(f"{what} differ: {_first_difference(expected, found[what])}")


def _first_difference(expected: Any, found: Any) -> str:
    if isinstance(expected, dict):
        different = sorted(name for name in {*expected, *found}
                           if expected.get(name) != found.get(name))
        return ", ".join(different)
    pairs = [pair for pair in zip(expected, found) if pair[0] != pair[1]]
    return f"{pairs[0][0]} != {pairs[0][1]}" if pairs else f"{len(expected)} != {len(found)}"


# -- faults: each lets a training run into one kind, and returns how often ----------------------


def kills(folder: Path, extra: Sequence[str], chance: random.Random, seconds: float,
          count: int) -> int:
    """Kill the process at random moments, from its start to its end."""
    return _cut_short(folder, extra, chance, seconds,
                      Ending(signal.SIGKILL, -signal.SIGKILL, count))


def interrupts(folder: Path, extra: Sequence[str], chance: random.Random, seconds: float) -> int:
    """Send SIGINT at random moments; the process must save and say 130."""
    return _cut_short(folder, extra, chance, seconds, Ending(signal.SIGINT, 130))


def terminations(folder: Path, extra: Sequence[str], chance: random.Random, seconds: float) -> int:
    """Send SIGTERM at random moments; the process must save and say 143."""
    return _cut_short(folder, extra, chance, seconds, Ending(signal.SIGTERM, 143))


class Ending(NamedTuple):
    """A signal, the exit code it must lead to, and how often it is sent."""

    number: signal.Signals
    code: int
    count: int = 2


def _cut_short(folder: Path, extra: Sequence[str], chance: random.Random, seconds: float,
               ending: Ending) -> int:
    met = 0
    for _ in range(ending.count):
        process = start(folder, next_command(folder, extra))
        # Python itself must be up before a signal is ours to answer
        time.sleep(chance.uniform(0.5 if ending.code > 0 else 0.0, seconds))
        met += process.poll() is None
        process.send_signal(ending.number)
        finish(process, ending.code, 0)
    return met


def damage(folder: Path, extra: Sequence[str], chance: random.Random, _seconds: float) -> int:
    """Damage the newest checkpoint in several ways; it must be named and passed over."""
    from ipucnn.models.checkpoint_files import entries

    finish(start(folder, [*TRAINING, *extra]), 0)
    whole = [entry.path for entry in entries(folder / "c")]
    met = 0
    while len(whole) > 1:
        newest = whole.pop()
        content = bytearray(newest.read_bytes())
        place = chance.randrange(len(content))
        way = chance.choice(("truncated", "flipped", "zeroed", "empty"))
        if way == "truncated":
            del content[place:]
        elif way == "flipped":
            content[place] ^= 1 << chance.randrange(8)
        elif way == "zeroed":
            content[place:place + 4096] = bytes(len(content[place:place + 4096]))
        else:
            content.clear()
        newest.write_bytes(bytes(content))
        process = start(folder, RESTORE)
        output = _until_restored(process)
        process.kill()
        process.communicate()
        met += 1
        if f"restoring 'c/{newest.name}'" in output:
            break  # only the archive's padding was hit: it reads as it was
        if newest.name not in output:
            raise Lost(f"{way} '{newest.name}' is not named: {output}")
    return met


def _until_restored(process: subprocess.Popen[str]) -> str:
    output = ""
    assert process.stderr is not None
    for line in process.stderr:
        output += line
        if line.startswith("note: restoring"):
            return output
    raise Lost(f"nothing was restored: {output}")


def lost_folder(folder: Path, extra: Sequence[str], _chance: random.Random,
                _seconds: float) -> int:
    """Delete the folder of checkpoints during a training, which continues with a note."""
    process = start(folder, [*TRAINING, *extra])
    _wait_for_checkpoint(folder)
    while list(folder.glob("c/*.pt")):  # the training writes there meanwhile
        shutil.rmtree(str(folder / "c"), ignore_errors=True)
    output = finish(process, 0)
    if "checkpoints are lost" not in output:
        raise Lost(f"the lost folder is not reported: {output[-600:]}")
    if not list(folder.glob(f"c/*_image_folder_{EPOCHS}.pt")):
        raise Lost("the last checkpoint was not written")
    shutil.rmtree(str(folder / "c"))
    return 1


def full_disk(folder: Path, extra: Sequence[str], chance: random.Random, _seconds: float) -> int:
    """Fill the file system under way; when there is room again, go on."""
    with _small_file_system(folder / "c"):
        process = start(folder, [*TRAINING, *extra])
        _wait_for_checkpoint(folder)
        filler = folder / "c" / "filler"
        leave = chance.randrange(1 << 20)
        usage = shutil.disk_usage(str(folder / "c"))
        with suppress(OSError):  # the training may take what was free: all the fuller
            filler.write_bytes(bytes(max(0, usage.free - leave)))
        output = finish(process, 1)
        if "No space left" not in output:
            raise Lost(f"the full disk is not reported: {output[-600:]}")
        _require_whole_checkpoint(folder)
        filler.unlink()
        finish(start(folder, RESTORE), 0)
        shutil.copytree(str(folder / "c"), str(folder / "copy"))
    _from_copy(folder)
    return 1


def read_only(folder: Path, extra: Sequence[str], _chance: random.Random, _seconds: float) -> int:
    """Make the file system read-only during a training, and continue it when it is writable."""
    with _small_file_system(folder / "c"):
        process = start(folder, [*TRAINING, *extra])
        _wait_for_checkpoint(folder)
        while subprocess.call(["mount", "-o", "remount,ro", str(folder / "c")],
                              stderr=subprocess.DEVNULL):  # busy while a file is being written
            time.sleep(0.005)
        output = finish(process, 1)
        if "Read-only file system" not in output:
            raise Lost(f"the read-only folder is not reported: {output[-600:]}")
        _require_whole_checkpoint(folder)
        subprocess.check_call(["mount", "-o", "remount,rw", str(folder / "c")])
        finish(start(folder, RESTORE), 0)
        shutil.copytree(str(folder / "c"), str(folder / "copy"))
    _from_copy(folder)
    return 1


def _from_copy(folder: Path) -> None:
    shutil.rmtree(str(folder / "c"))
    (folder / "copy").rename(folder / "c")


def _wait_for_checkpoint(folder: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while not list(folder.glob("c/*.pt")):
        if time.monotonic() > deadline:
            raise Lost("no checkpoint was written")
        time.sleep(0.005)


def _require_whole_checkpoint(folder: Path) -> None:
    from ipucnn.training.checkpoints.checkpoint_folder import newest

    newest(folder / "c")


@contextmanager
def _small_file_system(place: Path) -> Iterator[None]:
    place.mkdir()
    subprocess.check_call(["mount", "-t", "tmpfs", "-o", f"size={FILE_SYSTEM}", "tmpfs",
                           str(place)])
    try:
        yield
    finally:
        subprocess.call(["umount", "-l", str(place)])


def may_mount() -> bool:
    """Return whether this process may mount file systems."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = shutil.which("mount") is not None and not subprocess.call(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder],
            stderr=subprocess.DEVNULL)
        if mounted:
            subprocess.call(["umount", "-l", folder])
        return mounted


Fault = Callable[[Path, Sequence[str], random.Random, float], int]
FAULTS: Dict[str, Fault] = {
    "interrupts": interrupts, "terminations": terminations, "damage": damage,
    "lost_folder": lost_folder, "full_disk": full_disk, "read_only": read_only}
NAMES = ("kills", *FAULTS)
NEED_MOUNT = ("full_disk", "read_only")


# -- the campaign -------------------------------------------------------------------------------


def campaign(place: Path, chosen: argparse.Namespace) -> Dict[str, Any]:
    """Run it and return, by fault, runs tried, faults met and what was lost."""
    faults, runs = chosen.faults, chosen.runs
    finish(start(place, ["data", "shapes", "--out", "pictures", "--per-class", "8",
                         "--validation-per-class", "1", "--size", "40"]), 0)
    skipped = [fault for fault in faults if fault in NEED_MOUNT and not may_mount()]
    known = {**FAULTS, "kills": partial(kills, count=chosen.kills)}
    possible = {fault: known[fault] for fault in faults if fault not in skipped}
    table: Dict[str, Any] = {fault: {"runs": 0, "faults": 0, "lost": []} for fault in possible}

    def of_one(optimizer: str) -> List[Tried]:
        return list(_of_optimizer(place, ["--model", chosen.model, "--optimizer", optimizer],
                                  possible, runs, chosen.seed))

    with ThreadPoolExecutor(chosen.jobs) as pool:  # each waits for a process of one thread
        for tried in pool.map(of_one, chosen.optimizers):
            for run in tried:
                entry = table[run.fault]
                entry["runs"] += 1
                entry["faults"] += run.met
                if run.lost:
                    entry["lost"].append(f"{run.name}: {run.lost}")
    return {"optimizers": list(chosen.optimizers), "runs_per_fault_and_optimizer": runs,
            "seed": chosen.seed,
            "not_possible_here": skipped, "by_fault": table,
            "runs": sum(entry["runs"] for entry in table.values()),
            "faults": sum(entry["faults"] for entry in table.values()),
            "runs_that_lost_anything": sum(len(entry["lost"]) for entry in table.values())}


@dataclass
class Tried:
    """One training that met faults: how many, and what it lost, if anything."""

    name: str
    fault: str
    met: int = 0
    lost: str = ""


def _of_optimizer(place: Path, extra: Sequence[str], faults: Dict[str, Fault], runs: int,
                  seed: int) -> Iterator[Tried]:
    optimizer = extra[-1]
    (place / optimizer).mkdir()
    begun = time.monotonic()
    finish(start(place / optimizer, [*TRAINING, *extra]), 0)
    seconds = time.monotonic() - begun
    reference = remains(place / optimizer)
    for fault, meet in faults.items():
        for number in range(runs):
            run = Tried(f"{optimizer}-{fault}-{number}", fault)
            folder = place / run.name
            folder.mkdir()
            try:
                run.met = meet(folder, extra, random.Random(f"{seed}-{run.name}"), seconds)
                finish(start(folder, next_command(folder, extra)), 0)
                compare(folder, reference)
            except Exception as error:  # whatever it is, this run lost something
                run.lost = str(error) or repr(error)
            print(f"{run.name}: {run.lost or 'nothing lost'}", file=sys.stderr, flush=True)
            shutil.rmtree(str(folder), ignore_errors=True)
            yield run


def keep(name: str, measured: Dict[str, Any], out: Optional[str]) -> None:
    """Write figures to `results/<name>.json`, or to another file."""
    if out:
        Path(out).write_text(json.dumps(measured, indent=2) + "\n")
    else:
        write(name, measured, "faults")


def main() -> int:
    """Run the campaign; exit code 1 when anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS))
    parser.add_argument("--faults", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--model", default="mobilenet-v3-small")
    parser.add_argument("--runs", type=int, default=2, help="per fault and optimizer")
    parser.add_argument("--kills", type=int, default=4, help="of a training that is killed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1,
                        help="trainings at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every-write", action="store_true",
                        help="instead, kill at each call that writes: see kill_points.py")
    parser.add_argument("--minutes", type=float, default=1e6,
                        help="for '--every-write': begin no combination later")
    parser.add_argument("--point-step", type=int, default=1,
                        help="for '--every-write': kill at every n-th point only")
    parser.add_argument("--only", help="for '--every-write': part of the names of combinations")
    parser.add_argument("--afresh", action="store_true",
                        help="for '--every-write': repeat what the result has from an earlier run")
    parser.add_argument("--out", help="JSON file, instead of one in results/")
    arguments = parser.parse_args()
    name = "kills" if arguments.every_write else "faults"
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as place:
        if arguments.every_write:
            import kill_points

            measured = kill_points.campaign(
                Path(place), arguments, Path(arguments.out or RESULTS / f"{name}.json"),
                lambda figures: keep(name, figures, arguments.out))
        else:
            measured = campaign(Path(place), arguments)
    keep(name, measured, arguments.out)
    print(json.dumps(measured, indent=2))
    return 1 if measured["runs_that_lost_anything"] else 0


if __name__ == "__main__":
    sys.exit(main())
