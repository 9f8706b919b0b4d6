"""Runs commands on a few small images, and describes everything that can be seen of them."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import os
import random
import re
import sys
from pathlib import Path

import torch
from PIL import Image

from ipucnn.core.errors import IpucnnError
from ipucnn.core.options.building import build
from ipucnn.core.options.profiles import resolve
from ipucnn.core.progress import Listener
from ipucnn.core.registry.registry import registry

CLASSES = ("n01440764", "n01443537", "n01484850")
TRAIN, VALIDATION = (7, 5, 3, 3), (2, 2, 2, 2)
_TIMES = {"seconds", "images_per_second", "compute_images_per_second",
          "data_wait_share", "compile_seconds", "environment",
          "throughput", "compute_throughput", "latency_ms", "time", "options", "seconds_left",
          "notes", "image_seconds", "log_dir", "checkpoint"}


@dataclasses.dataclass
class Outcome:
    """The effects of a command: a description without times, its notes, and its error."""

    seen: str = ""
    notes: str = ""
    error: str = ""


class Notes(Listener):
    """Keeps notes and lines."""

    def __init__(self):
        self.notes, self.lines = [], []

    def note(self, text):
        self.notes.append(text)

    def line(self, text):
        if "Throughput" not in text:
            self.lines.append(text)


def write_photos(place: Path, splits=True, seed=0, classes=CLASSES) -> str:
    """Write small JPEG files of classes of unequal size; return the folder."""
    chance = random.Random(seed)
    parts = (("train", TRAIN), ("validation", VALIDATION)) if splits else ((".", TRAIN),)
    for split, counts in parts:
        for name, count in zip(classes, counts):
            folder = place / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                image = Image.frombytes("RGB", (24, 20), chance.getrandbits(8 * 1440)
                                        .to_bytes(1440, "big")).resize((48, 40), Image.BICUBIC)
                image.save(str(folder / f"{number}.JPEG"), quality=95)
    return str(place)


def outcome(command: str, given: dict, place: Path) -> Outcome:
    """Run a command in a new folder."""
    from recording_backend import EVENTS

    place.mkdir(parents=True)
    before, err = os.getcwd(), io.StringIO()
    os.chdir(place)
    EVENTS.clear()
    try:
        with contextlib.redirect_stderr(err):
            seen, notes = _JOBS[command](dict(given))
    except IpucnnError as error:
        return Outcome(error=f"{error.message}; {error.hint}")
    finally:
        os.chdir(before)
    described = repr((_plain(seen), _files(place), EVENTS))
    return Outcome(_anywhere(described, place),
                   _anywhere("\n".join(notes) + err.getvalue(), place))


def _anywhere(text, place):
    text = re.sub(r" at 0x[0-9a-f]+", "", text.replace(str(place), "HERE"))
    return re.sub(r"_\d{8}-\d{6}(-\d+)?", "_TIME", text)


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if name not in _TIMES}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _files(place):
    found = []
    for path in sorted(place.rglob("*")):
        content = ""
        if path.suffix == ".pt":
            content = {name: float(value.double().sum()) for name, value in torch.load(
                path, weights_only=True)["model"].items()}
        elif path.suffix == ".csv":
            with path.open(newline="") as file:
                content = [_plain(row) for row in csv.DictReader(file)]
        elif path.suffix == ".jsonl":
            content = [_plain(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.suffix == ".tar":
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found.append((str(path.relative_to(place)), content))
    return found


def _train(given):
    from ipucnn.training.options.train_options import TrainOptions
    from ipucnn.training.phases import train_all

    listener = Notes()
    result = train_all(resolve(TrainOptions, given, "train"), listener=listener).as_dict()
    return (result, listener.lines), listener.notes


def _run(given):
    from ipucnn.inference.job import run
    from ipucnn.inference.options import RunOptions

    result = run(resolve(RunOptions, given, "run")).as_dict()
    return result, [*result["notes"], result["accuracy_note"]]


def _restore(given):
    from ipucnn.training.restore import restore

    listener = Notes()
    result = restore(given, listener=listener).as_dict()
    return (result, listener.lines), listener.notes


def _validate(given):
    from ipucnn.training.options.stored_options import ValidateOptions
    from ipucnn.training.validate import validate

    listener = Notes()
    found = validate(build(ValidateOptions, given), listener=listener)
    return [row.figures() for row in found], listener.notes


def _average(given):
    from ipucnn.training.options.stored_options import AverageOptions
    from ipucnn.training.phases import average_checkpoints

    made = average_checkpoints(build(AverageOptions, given))
    return [str(made.path), made.strategy, list(map(str, made.files))], made.notes


def _export(given):
    import onnx

    from ipucnn.onnx.job import export
    from ipucnn.onnx.options import ExportOptions

    result = export(resolve(ExportOptions, given, "export"))
    made = onnx.load(result.path)
    card = {entry.key: {name: value for name, value in json.loads(entry.value).items()
                        if name != "provenance"} if entry.value.startswith("{") else entry.value
            for entry in made.metadata_props}
    card = json.dumps(card, sort_keys=True)
    weights = [hash(entry.raw_data) for entry in made.graph.initializer]
    nodes = [(node.op_type, str(node.attribute)) for node in made.graph.node]
    return (result.as_dict(), card, weights, nodes), []


def _plan(given):
    from ipucnn.commands.plan import plan

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        plan(_as_typed(given))
    return out.getvalue(), []


def _as_typed(given):
    """Return values as the command line gives them."""
    return {name: value if isinstance(value, bool) else list(map(str, value))
            if isinstance(value, (tuple, list)) else str(value) for name, value in given.items()}


def _convert(given):
    from ipucnn.data.formats.convert import convert
    from ipucnn.data.formats.convert_options import ConvertOptions

    made = convert(build(ConvertOptions, given), lambda *_: None)
    return made.as_dict(), made.notes


def _bench(given):
    from recording_backend import EVENTS, digest

    from ipucnn.benchmarking import job
    from ipucnn.benchmarking.options import BenchOptions

    real, dataset_seen = job.feed, []

    def feed(fed, dataset, plan, size, indices, **how):
        dataset_seen.append(dataset)
        EVENTS.append((repr(plan), size, list(indices), sorted(map(repr, how.items()))))
        return real(fed, dataset, plan, size, indices, **how)

    job.feed = feed
    try:
        result = job.bench(build(BenchOptions, given))
    finally:
        job.feed = real
    return (result.dataset, result.images, digest(dataset_seen[0].image(0)), result.skipped,
            result.mode, result.pixels, result.input_size, result.job, bool(result.compute)), \
        result.notes


def _networks(given):
    """Measure networks with contenders that only record what they receive."""
    from ipucnn.benchmarking import networks
    from ipucnn.benchmarking.network_options import NetworkBenchOptions

    received, real = [], networks.Process

    class Recorder:
        def __init__(self, contender, settings):
            self.contender = contender

        def prepare(self, case):
            received.append((self.contender, case))

        def turn(self, seconds):
            received.append(seconds)
            return 1.0

        def end(self):
            return {}

        def close(self):
            received.append("closed")

    networks.Process = Recorder
    try:
        result = networks.bench(build(NetworkBenchOptions, given))
    finally:
        networks.Process = real
    return received, result.all_notes()


_JOBS = {"train": _train, "run": _run, "restore": _restore, "validate": _validate,
         "average": _average, "export": _export, "plan": _plan, "data convert": _convert,
         "data bench": _bench, "bench": _networks}


def plugins_loaded():
    """Return a registry with the recording backend."""
    from ipucnn.core.registry.discovery import PluginSettings
    from ipucnn.core.registry.registry import Registry, use

    here = Path(__file__).parent
    if str(here) not in sys.path:
        sys.path.insert(0, str(here))
    use(Registry(PluginSettings(extra=("recording_backend",))))
    return registry()
