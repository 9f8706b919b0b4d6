"""Kills trainings at each call that writes, one after another, and continues them.

A training and everything that it imports is loaded once; each run is a fork of that process, which
counts its calls of the system that change files in its folder (creating, writing, truncating,
renaming, removing) and kills itself with SIGKILL before the n-th of them, or in the middle of it
where it writes. What is left is continued as a user would, by `restore` or, without a checkpoint,
by the same `train`; of some runs, that is killed as well. The end must be that of a training that
nothing happened to.

Files are written by Python's own implementation of `open` (`_pyio`), which makes every call
through the module `os`, where it is counted. A fork differs from a process of its own in what it
has imported only: the process that forks has started no thread and opened no file of a training.
"""

from __future__ import annotations

import _pyio
import argparse
import builtins
import gc
import hashlib
import importlib
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Sequence, Set, Tuple

PLUGIN = ["--plugin", str(Path(__file__).resolve().parents[1] / "tests" / "tiny_plugin.py")]
COMMON = ["--model", "tiny", "--backend", "torch", "--data", "image_folder", "--data-dir",
          "../../pictures", "--precision", "full", "--batch-size", "4", "--lr", "0.3",
          "--best-metric", "loss", "--dataloader-worker", "1", "--progress", "off",
          "--checkpoint-path", "c"]
EPOCHS = 3
RESTORE = ["restore", "--checkpoint-path", "c", "--progress", "off"]
CLOCK = ("images_per_second", "data_wait_share")
NEVER = 1 << 60
SECONDS = 600
"""Longer than a run takes on a busy machine."""


def combinations() -> Iterator[Tuple[str, List[str]]]:
    """Yield the name and the options of every kind of training; every other one keeps the last."""
    lasts = itertools.cycle((0, 1))
    for mode, freq, ending in itertools.product(
            ("during", "after", "none"), (1, 2), ("plain", "averaged", "half-resolution")):
        for best, stop in itertools.product((False, True), repeat=2) if mode == "during" else [
                (False, False)]:
            last = next(lasts) if best or mode != "during" else 0
            name = [mode, f"every {freq}", f"keep {last or 'all'}", ending]
            options = ["--epoch", str(EPOCHS), "--validation-mode", mode, "--keep-last", str(last),
                       "--checkpoint-save-freq", str(freq)]
            if best:
                name.append("keep best")
                options.append("--keep-best")
            if stop:
                name.append("early stopping")
                options += ["--early-stopping", "1"]
            if ending != "plain":
                options += ["--weight-avg-strategy", "mean"]
            if ending == "half-resolution":
                options += ["--half-res-training", "--fine-tune-epoch", "1", "--fine-tune-lr",
                            "0.01", "--fine-tune-first-trainable-layer", "2",
                            "--fine-tune-batch-size", "4"]
            yield ", ".join(name), options


# -- one run ------------------------------------------------------------------------------------


class Killer:
    """Counts the points at which this process changes files, and kills it at one of them.

    Args:
        folder: where files are counted.
        at: the number of the point.
    """

    def __init__(self, folder: Path, at: int) -> None:
        self._folder = os.path.realpath(str(folder)) + os.sep
        self._at = at
        self.points = 0
        self._readlink = os.readlink
        for name in ("replace", "rename", "unlink", "remove", "mkdir", "rmdir", "truncate"):
            self._wrap(name, self._path)
        self._wrap("ftruncate", self._descriptor)
        self._wrap("open", lambda path, flags=0, *_: bool(
            flags & (os.O_CREAT | os.O_TRUNC)) and self._path(path))
        # what a killed process has written stays, synced or not
        os.fsync = lambda _descriptor: None  # type: ignore[assignment]
        self._write = os.write
        os.write = self._writing
        read = builtins.open

        def opened(file: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
            writes = any(letter in mode for letter in "wax+")
            return (_pyio.open if writes else read)(file, mode, *rest, **named)

        builtins.open = io.open = opened  # type: ignore[assignment]

    def _wrap(self, name: str, here: Callable[..., bool]) -> None:
        call = getattr(os, name)

        def counted(*given: Any, **named: Any) -> Any:
            if here(*given):
                self._point()
            return call(*given, **named)

        setattr(os, name, counted)

    def _writing(self, descriptor: int, data: Any) -> int:
        if not self._descriptor(descriptor):
            return self._write(descriptor, data)
        self._point()
        if len(data) > 1 and self.points + 1 == self._at:
            self._write(descriptor, bytes(data[:len(data) // 2]))
        self._point()
        return self._write(descriptor, data)

    def _point(self) -> None:
        self.points += 1
        if self.points == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _path(self, path: Any, *_: Any) -> bool:
        if isinstance(path, int):
            return self._descriptor(path)
        return os.path.realpath(os.fspath(path)).startswith(self._folder)

    def _descriptor(self, descriptor: int, *_: Any) -> bool:
        try:
            return self._readlink(f"/proc/self/fd/{descriptor}").startswith(self._folder)
        except OSError:
            return False


def run(folder: Path, argv: Sequence[str], at: int = NEVER,
        modules: bool = False) -> Tuple[int, int, str]:
    """Run a command in a fork of this process.

    Args:
        folder: the working folder of the command.
        argv: the command.
        at: the point at which it is killed.
        modules: write the names of the imported modules to the file `modules`.

    Returns:
        The exit code (negative for a signal), the number of points passed, and the output.
    """
    (folder / "output").unlink() if (folder / "output").exists() else None
    reading, writing = os.pipe()
    number = os.fork()
    if not number:
        try:
            os.close(reading)
            os.chdir(str(folder))
            file = os.open("output", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(file, 1)
            os.dup2(file, 2)
            signal.alarm(SECONDS)  # ends a run that hangs by SIGALRM
            killer = Killer(folder / "c", at)
            from ipucnn.__main__ import invoke

            code = invoke([*PLUGIN, *argv])
            sys.stdout.flush()
            sys.stderr.flush()
            if modules:
                Path("modules").write_text(" ".join(sys.modules))
            killer._write(writing, json.dumps(killer.points).encode())
        except BaseException as error:
            os.write(2, repr(error).encode())
            os._exit(99)
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        points = pipe.read()  # until its end
    status = os.waitpid(number, 0)[1]
    text = (folder / "output").read_text(errors="replace")
    return os.waitstatus_to_exitcode(status), int(points or 0), text


OF_THE_CLOCK = ("report.html", "status.json", "training.json")
"""Files that state times and speeds; a training is not continued from them."""


def remains(folder: Path) -> Dict[str, Any]:
    """Return everything that a training leaves behind, without what the clock wrote."""
    found: Dict[str, Any] = {}
    for path in sorted((folder / "c").rglob("*")):
        name = str(path.relative_to(folder / "c"))
        if path.name in OF_THE_CLOCK:
            continue
        if path.is_dir():
            found[name] = "a folder"
        elif path.name == "metrics.jsonl":
            found[name] = [{key: value for key, value in json.loads(line).items()
                            if key not in CLOCK} for line in path.read_text().splitlines()]
        elif path.name == "metrics.csv":
            found[name] = len(path.read_text().splitlines())
        else:
            found[name] = path.read_bytes()
    return found


def difference(expected: Dict[str, Any], found: Dict[str, Any]) -> str:
    """Return the names of what differs, or an empty string."""
    return ", ".join(sorted(name for name in {*expected, *found}
                            if expected.get(name) != found.get(name)))


# -- the campaign -------------------------------------------------------------------------------


def _import_all(place: Path) -> None:
    """Import whatever a training imports, before the forks; no thread is started."""
    folder = place / "imports" / "run"
    folder.mkdir(parents=True)
    options = dict(combinations())["during, every 1, keep all, averaged"]
    code, _, output = run(folder, ["train", *COMMON, *options], modules=True)
    if code:
        raise RuntimeError(output)
    for name in (folder / "modules").read_text().split():
        with suppress(Exception):  # made by a plugin, or for the main program
            importlib.import_module(name)


@dataclass
class Outcome:
    """What a kind of training went through.

    Attributes:
        name: of the combination.
        points: at which it may be killed.
        kills: at how many of them it was.
        states: different contents of its folder that these left, each of which was continued.
        killed_again: kills while it continued.
        lost: what was lost, by point.
    """

    name: str
    points: int = 0
    kills: int = 0
    states: int = 0
    killed_again: int = 0
    lost: List[str] = field(default_factory=list)


class Combination:
    """One kind of training, and its end when nothing happens to it.

    Args:
        place: a folder, with the pictures above it.
        name: of the combination.
        options: of the training.
        seed: of what is killed again.
    """

    def __init__(self, place: Path, name: str, options: Sequence[str], seed: int) -> None:
        self.outcome = Outcome(name)
        self._place = place
        self._train = ["train", *COMMON, *options]
        self._chance = random.Random(f"{seed}-{name}")
        self._seen: Set[str] = set()
        reference = place / "reference"
        reference.mkdir(parents=True)
        code, self.outcome.points, output = run(reference, self._train)
        if code:
            raise RuntimeError(f"{name}: exit code {code}: {output[-400:]}")
        self._expected = remains(reference)

    def kill(self, at: int) -> None:
        """Kill it at a point, and continue it unless that was done from the same files."""
        folder = self._place / "run"
        shutil.rmtree(str(folder), ignore_errors=True)
        folder.mkdir()
        trouble = self._killed(folder, at)
        if trouble:
            self.outcome.lost.append(f"point {at}: {trouble}")
            folder.rename(self._place / f"lost-{at}")

    def _killed(self, folder: Path, at: int) -> str:
        code, _, output = run(folder, self._train, at)
        if code != -signal.SIGKILL:
            return f"not killed, exit code {code}: {output[-300:]}"
        self.outcome.kills += 1
        state = _state(folder)
        if state in self._seen:
            return ""
        self._seen.add(state)
        self.outcome.states += 1
        if self._chance.random() < 1 / 4:
            code, _, output = run(folder, self._next(folder), self._chance.randrange(1, 40))
            if code not in (0, -signal.SIGKILL):
                return f"the second run: exit code {code}: {output[-300:]}"
            self.outcome.killed_again += bool(code)
        code, _, output = run(folder, self._next(folder))
        if code or "Traceback" in output:
            return f"exit code {code}: {output[-300:]}"
        return difference(self._expected, remains(folder))

    def _next(self, folder: Path) -> Sequence[str]:
        """Return what a user would type now: go on where there is a checkpoint, else begin."""
        return RESTORE if list(folder.glob("c/*.pt")) else self._train


def _state(folder: Path) -> str:
    """Return a digest of the files of a training, without those of the clock.

    Of unfinished files, which nothing reads, only the number and the final names count.
    """
    digest = hashlib.sha256()
    for path in sorted((folder / "c").rglob("*")):
        name = str(path.relative_to(folder))
        if path.name.endswith(".partial"):
            name = name.rsplit(".", 2)[0]
        content = b"" if path.is_dir() or path.name.startswith(".") else path.read_bytes()
        if path.name.startswith("metrics."):
            content = CLOCK_VALUES.sub(b"", content)
        digest.update(repr((name, hashlib.sha256(content).hexdigest())).encode())
    return digest.hexdigest()


CLOCK_VALUES = re.compile(rb'"(images_per_second|data_wait_share)": [^,}]*|'
                          rb",[0-9.e-]+,[0-9.e-]*(?=,,,,,)")
"""What the clock wrote into the files of metrics: in JSON by name, in CSV before the empty ones."""


def campaign(place: Path, chosen: argparse.Namespace,
             result: Path, save: Callable[[Dict[str, Any]], None]) -> Dict[str, Any]:
    """Kill all kinds of trainings, and return how often, and what was lost.

    Args:
        place: an empty folder.
        chosen: the options of `faults.py`.
        result: the file of an earlier run, whose finished combinations are kept.
        save: is given the figures so far after each combination.
    """
    import torch

    torch.set_num_threads(1)
    code, _, output = run(place, ["data", "shapes", "--out", "pictures", "--per-class", "1",
                                "--validation-per-class", "1", "--size", "16"])
    if code:
        raise RuntimeError(output)
    _import_all(place)
    gc.collect()
    gc.freeze()  # so that forks share its memory
    until = time.monotonic() + 60 * chosen.minutes
    wanted = [item for item in combinations() if not chosen.only or chosen.only in item[0]]
    found = {} if chosen.afresh else _finished(result, chosen.seed)
    left = [(number, item) for number, item in enumerate(wanted) if item[0] not in found]
    busy: Dict[int, int] = {}
    failed = []
    while busy or (left and time.monotonic() < until):
        if left and len(busy) < chosen.jobs and time.monotonic() < until:
            number, item = left.pop(0)
            busy[_of_combination(place / str(number), item, chosen.seed,
                                 chosen.point_step)] = number
            continue
        process, status = os.wait()
        number = busy.pop(process)
        if status:
            failed.append(wanted[number][0])
            continue
        one = Outcome(**json.loads((place / str(number) / "outcome.json").read_text()))
        found[one.name] = one
        save(_figures(found, chosen.seed))
        shutil.rmtree(str(place / str(number)))
    if failed:
        raise RuntimeError(f"these combinations did not run to their end: {'; '.join(failed)}")
    return _figures(found, chosen.seed)


def _of_combination(place: Path, item: Tuple[str, List[str]], seed: int, step: int) -> int:
    """Kill one kind of training at its points, in a fork, and return the fork's number.

    Args:
        place: an empty folder.
        item: name and options of the combination.
        seed: of what is killed again.
        step: 1 for all points, n for every n-th.
    """
    number = os.fork()  # this process has one thread
    if number:
        return number
    try:
        one = Combination(place, *item, seed)
        for at in range(1, one.outcome.points + 1, step):
            one.kill(at)
        print(one.outcome, file=sys.stderr, flush=True)
        (place / "outcome.json").write_text(json.dumps(asdict(one.outcome)))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _finished(result: Path, seed: int) -> Dict[str, Outcome]:
    """Return the combinations of an earlier run in which every point was killed."""
    if not result.exists():
        return {}
    earlier = json.loads(result.read_text())
    return {name: Outcome(name, **figures) for name, figures in earlier["by_combination"].items()
            if earlier["seed"] == seed and figures["kills"] == figures["points"]
            and not figures["lost"]}


def _figures(found: Dict[str, Outcome], seed: int) -> Dict[str, Any]:
    names = [name for name, _ in combinations()]
    outcomes = sorted(found.values(), key=lambda outcome: names.index(outcome.name))

    def total(what: str) -> int:
        return sum(getattr(outcome, what) for outcome in outcomes)

    return {"complete": len(outcomes) == len(names), "combinations_in_all": len(names),
            "combinations": len(outcomes), "seed": seed, "points": total("points"),
            "kills": total("kills"), "states": total("states"),
            "killed_again": total("killed_again"),
            "runs_that_lost_anything": sum(len(outcome.lost) for outcome in outcomes),
            "by_combination": {outcome.name: {
                name: value for name, value in asdict(outcome).items() if name != "name"}
                for outcome in outcomes}}
