"""Everything once on IPUs, small, compared with the `torch` backend: for owners of IPUs.

    python benchmarks/ipu.py [--out ipu.json] [--backends popart poptorch] [--only TEXT]

It takes about half an hour, most of it compilation, needs two IPUs for pipelines and replicas, and
writes one file with versions, figures and every difference, ready to be attached to a report. The
exit code is 1 if something failed or differs. What this machine cannot do is named and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

with suppress(ImportError):
    import popart  # noqa: F401 - it does not import after onnx

import torch

from ipucnn.core.environment import describe
from ipucnn.core.errors import IpucnnError, UnavailableError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import OptimizerChoice, TrainingBatch, TrainingSetup
from ipucnn.core.registry.records import BackendSpec, OptimizerSpec
from ipucnn.core.registry.registry import registry
from ipucnn.models.build import create_model
from ipucnn.plugins.losses.cross_entropy import CrossEntropy
from ipucnn.training.checkpoints.checkpoint import load

BACKENDS = ("popart", "poptorch")
SIZE, CLASSES, MICRO_BATCH = 32, 10, 4
SPLIT = "layer2"
CALLS = 4
TOLERANCE = {"32.32": 2e-3, "16.32": 6e-2, "16.16": 6e-2}
"""Largest difference of a logit from torch in single precision, as a share of the largest one."""
TRAINED = {"32.32": 5e-4, "16.32": 1e-2, "16.16": 1e-2}
"""The same of a weight after a short training, as a share of the largest weight of all."""
BATCH_NORM = 1e-2
"""The same with batch norms, whose gradient PopART makes from the variance of a sample."""

POPRUN = "poprun --num-instances 2 --num-replicas 2 --ipus-per-replica 1"


@dataclass
class Step:
    """One thing that was tried.

    Attributes:
        name: of backend and what was tried.
        state: "ok", "differs", "failed" or "left out".
        figures: seconds, images per second, differences.
        text: of an error, or why it was left out.
    """

    name: str
    state: str = "ok"
    figures: Dict[str, Any] = field(default_factory=dict)
    text: str = ""


class Differs(Exception):
    """A result is too far from what it should be."""


# -- networks, data and sessions ---------------------------------------------------------------


def network(norm: str = "group") -> torch.nn.Module:
    """Return a small ResNet with the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        given = {"groupnorm_group_num": 4} if norm == "group" else {}
        return create_model("resnet8-cifar", num_classes=CLASSES, weights="random",
                            normlayer=norm, **given).module


def batch(count: int, seed: int) -> TrainingBatch:
    """Return random images and labels."""
    generator = torch.Generator().manual_seed(seed)
    return TrainingBatch(
        torch.randint(0, 256, (count, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator),
        torch.randint(0, CLASSES, (count,), generator=generator))


def engine(name: str, **options: Any) -> Any:
    """Return a backend with options of its own."""
    used = registry()
    spec = used.get_typed(BackendSpec, name)
    return used.make(spec, options=used.options_class(spec)(**options)) if options \
        else used.make(spec)


def setup(name: str = "sgd", **options: Any) -> TrainingSetup:
    """Return a setup with cross-entropy and an optimizer."""
    used = registry()
    spec = used.get_typed(OptimizerSpec, name)
    own = used.options_class(spec)(**options)
    return TrainingSetup(CrossEntropy(), OptimizerChoice(
        spec.name, 0.02, 0.0, own, partial(used.make, spec, options=own)))


def plan_of(training: bool, **values: Any) -> ExecutionPlan:
    """Return a small plan."""
    return ExecutionPlan(**{"precision": "32.32", "micro_batch": MICRO_BATCH, "seed": 1,
                            "training": training, **values})


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the largest difference, as a share of the largest expected value."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-6))


# -- what is tried -----------------------------------------------------------------------------


def infer(name: str, options: Optional[Dict[str, Any]] = None, **plan: Any
          ) -> Tuple[torch.Tensor, Dict[str, Any]]:
    """Classify a few host calls; return the logits and the figures."""
    made = plan_of(False, **plan)
    with engine(name, **(options or {})).inference(network().eval(), made, SIZE) as session:
        seconds = session.compile()
        images = batch(made.combined_batch, 0).images
        parts = images.split(session.samples_per_call)
        logits = torch.cat([session(part) for part in parts])
        started = time.perf_counter()
        for _ in range(CALLS):
            session(parts[0])
        rate = CALLS * len(parts[0]) / (time.perf_counter() - started)
    return logits, {"compilation_s": round(seconds, 1), "images_per_s": round(rate, 1)}


def inference(name: str, options: Optional[Dict[str, Any]] = None, **plan: Any) -> Dict[str, Any]:
    """Compare inference with torch in single precision."""
    logits, figures = infer(name, options, **plan)
    expected, _ = infer("torch", None, **{**plan, "precision": "32.32", "pipeline_splits": ()})
    return judged(figures, difference(logits, expected),
                  TOLERANCE[plan.get("precision", "32.32")])


def train(name: str, options: Optional[Dict[str, Any]] = None, norm: str = "group",
          optimizer: str = "sgd", calls: Sequence[int] = tuple(range(CALLS)),
          saved: Any = None, **plan: Any) -> Tuple[Any, Any, Dict[str, Any]]:
    """Train; return weights, state and the figures."""
    made = plan_of(True, **plan)
    own = {"momentum": 0.9} if optimizer.startswith("sgd") else {}
    with engine(name, **(options or {})).training(
            network(norm), made, setup(optimizer, **own), SIZE) as session:
        seconds = session.compile()
        if saved is not None:
            session.load(*saved)
        started, count = time.perf_counter(), 0
        for number in calls:
            result = session.step(batch(made.combined_batch, number),
                                  number * made.device_iterations)
            count += result.samples
        rate = count / (time.perf_counter() - started)
        return session.weights(), session.state(), {
            "compilation_s": round(seconds, 1), "images_per_s": round(rate, 1),
            "loss": round(result.loss, 5)}


def training(name: str, options: Optional[Dict[str, Any]] = None, norm: str = "group",
             optimizer: str = "sgd", **plan: Any) -> Dict[str, Any]:
    """Compare a short training with torch in single precision."""
    weights, _, figures = train(name, options, norm, optimizer, **plan)
    alone = {**plan, "precision": "32.32", "pipeline_splits": (), "recompute": "none",
             "recompute_checkpoints": ()}
    expected, _, _ = train("torch", None, norm, optimizer, **alone)
    moved = worst(weights, expected)
    limit = TRAINED[plan.get("precision", "32.32")]
    return judged(figures, moved, max(limit, BATCH_NORM) if norm == "batch" else limit)


def worst(found: Dict[str, torch.Tensor], expected: Dict[str, torch.Tensor]) -> float:
    """Return the largest difference of a weight, as a share of the largest weight."""
    weights = {name: value for name, value in expected.items() if value.is_floating_point()}
    largest = max(float(value.abs().max()) for value in weights.values())
    return max(float((found[name] - value).abs().max())
               for name, value in weights.items()) / largest


def judged(figures: Dict[str, Any], found: float, limit: float) -> Dict[str, Any]:
    """Return the figures with a difference, or raise."""
    figures.update(difference=float(f"{found:.3g}"), allowed=limit)
    if not found <= limit:
        raise Differs(json.dumps(figures))
    return figures


def recomputation(name: str) -> Dict[str, Any]:
    """Recomputing changes no weight."""
    plain, _, _ = train(name)
    figures: Dict[str, Any] = {}
    for mode, points in (("auto", ()), ("manual", ("layer1", "layer2"))):
        weights, _, found = train(name, recompute=mode, recompute_checkpoints=points)
        figures[mode] = judged(found, worst(weights, plain), 1e-5)
    return figures


def cache(name: str) -> Dict[str, Any]:
    """A warm cache saves compilation, and gives the same answers with other constants too."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"model_cache_path": folder}
        cold, first = infer(name, options)
        warm, second = infer(name, options)
        deeper, third = infer(name, {**options, "prefetch_depth": 3})
    figures = {"cold_s": first["compilation_s"], "warm_s": second["compilation_s"],
               "other_depth_s": third["compilation_s"]}
    return judged(figures, max(difference(warm, cold), difference(deeper, cold)), 1e-6)


def resume(name: str, optimizer: str = "sgd") -> Dict[str, Any]:
    """A training that is interrupted and restored ends as one that is not."""
    whole, _, figures = train(name, optimizer=optimizer)
    half = CALLS // 2
    weights, state, _ = train(name, optimizer=optimizer, calls=range(half))
    again, _, _ = train(name, optimizer=optimizer, calls=range(half, CALLS),
                        saved=(weights, state))
    return judged(figures, worst(again, whole), 0.0)


def instances(name: str, launcher: Sequence[str]) -> Dict[str, Any]:
    """Two instances of poprun train as one process with two replicas."""
    if shutil.which(launcher[0]) is None:
        raise UnavailableError(f"there is no {launcher[0]!r} here")
    command = [sys.executable, "-m", "ipucnn", "train", "--backend", name, "--model",
               "resnet8-cifar", "--data", "shapes", "--input-size", str(SIZE), "--precision",
               "full", "--batch-size", "2", "--iterations", "2", "--epoch", "1", "--seed", "1",
               "--no-validation", "--progress", "off", "--lr", "0.05"]
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for words, place in (((*launcher, *command), "two"),
                             ((*command, "--replicas", "2"), "one")):
            done = subprocess.run([*words, "--checkpoint-path", str(Path(folder, place))],
                                  capture_output=True, text=True, check=False, timeout=1200)
            if done.returncode:
                raise IpucnnError(done.stderr.strip()[-500:] or "it fails", "see above")
            (path,) = sorted(Path(folder, place).glob("*.pt"))[-1:]
            found.append(load(path).weights)
    return judged({}, worst(found[0], found[1]), 1e-4)


def steps(name: str, launcher: Sequence[str]) -> List[Tuple[str, Callable[[], Dict[str, Any]]]]:
    """Return what is tried with a backend."""
    tried: List[Tuple[str, Callable[[], Dict[str, Any]]]] = []
    for precision in ("32.32", "16.32", "16.16"):
        tried += [(f"inference {precision}", partial(inference, name, precision=precision)),
                  (f"training {precision}", partial(training, name, precision=precision))]
    tried += [
        ("inference in a pipeline", partial(inference, name, pipeline_splits=(SPLIT,),
                                            device_iterations=2)),
        ("inference through IO tiles", partial(inference, name, {"num_io_tiles": 32},
                                               device_iterations=4)),
        ("training with batch norm", partial(training, name, norm="batch")),
        ("training with adamw", partial(training, name, optimizer="adamw")),
        ("training in a pipeline", partial(training, name, pipeline_splits=(SPLIT,),
                                           gradient_accumulation=3)),
        ("training with accumulation in half", partial(training, name, precision="16.16",
                                                       gradient_accumulation=16)),
        ("training with replicas", partial(training, name, replicas=2)),
        ("training through IO tiles", partial(training, name, {"num_io_tiles": 32},
                                              gradient_accumulation=4)),
        ("recomputation", partial(recomputation, name)),
        ("cache", partial(cache, name)),
        ("resume", partial(resume, name)), ("resume of adamw", partial(resume, name, "adamw"))]
    if name == "poptorch":
        tried.append(("two instances of poprun", partial(instances, name, launcher)))
    return tried


def attempt(name: str, trial: Callable[[], Dict[str, Any]]) -> Step:
    """Try one thing, and report the outcome."""
    try:
        return Step(name, figures=trial())
    except Differs as error:
        return Step(name, "differs", json.loads(str(error)))
    except UnavailableError as error:
        return Step(name, "left out", text=error.message)
    except IpucnnError as error:
        return Step(name, "failed", text=f"{error.message} ({error.hint})")
    except Exception as error:  # all other steps are tried all the same
        return Step(name, "failed", text=f"{type(error).__name__}: {error}")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Try everything, write the file, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="ipu.json", help="file that is written")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--only", default="", help="try only what has this text in its name")
    parser.add_argument("--launcher", default=POPRUN,
                        help="what starts two instances, with one replica each")
    given = parser.parse_args(argv)
    done: List[Step] = []
    versions: Dict[str, Any] = {}
    for name in given.backends:
        probe = registry().make(registry().get_typed(BackendSpec, name)).probe()
        versions[name] = dict(probe.versions, device=probe.device or "")
        if not probe.usable:
            done.append(Step(name, "left out", text=str(probe.reason)))
            continue
        for what, trial in steps(name, shlex.split(given.launcher)):
            if given.only in f"{name} {what}":
                print(f"{name}: {what} ...", file=sys.stderr, flush=True)
                done.append(attempt(f"{name}: {what}", trial))
    Path(given.out).write_text(json.dumps({
        "backends": versions, "steps": [vars(step) for step in done],
        "environment": {**describe(), "sdk": os.environ.get("POPLAR_SDK_ENABLED", "")}},
        indent=2) + "\n")
    for step in done:
        figures = ", ".join(f"{key} {value}" for key, value in step.figures.items()
                            if not isinstance(value, dict))
        print(f"{step.name:46} {step.state:9} {step.text or figures}")
    return 1 if any(step.state in ("failed", "differs") for step in done) else 0


if __name__ == "__main__":
    sys.exit(main())
