"""Every option of the two IPU backends, for every family, norm layer and precision, on the doubles.

`make test` runs a few of the cases (`test_engine_matrix.py`), `make test-matrix` all of them:

    python tests/plugins/backends/engine_matrix.py benchmarks/results/engine_matrix.json
"""

from __future__ import annotations

import argparse
import gc
import importlib
import itertools
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from chosen import optimizer

from ipucnn.core.execution.mixing import MixOptions
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import (
    NonFiniteLoss,
    TrainingBatch,
    TrainingSetup,
)
from ipucnn.data.mixup import draw
from ipucnn.models.build import create_model
from ipucnn.models.tracing import execution_order
from ipucnn.plugins.losses.cross_entropy import CrossEntropy, CrossEntropyOptions

DOUBLES = Path(__file__).resolve().parents[2] / "doubles"
CLASSES = 5
FAMILIES = {"resnet8-cifar": 16, "resnet18": 32, "resnext50": 32, "mobilenet": 64,
            "mobilenet-v3-small": 32, "efficientnet-b0": 32}
"""Families and a size of images that is enough for them.

At 32 pixels the last layers of `mobilenet` have one pixel: batch norm over the two values of a
micro-batch of two multiplies gradients by up to 300 a layer, and the first update makes weights of
10^7, in float32 on the `torch` backend too."""
LARGE = ("resnext50",)
"""Families that take long: each set of options is tried with one norm layer, in one precision."""
NORMS = ("batch", "group", "none")
PRECISIONS = ("16.16", "16.32", "32.32")
BACKENDS = {"popart": ("popart.engine:PopArtBackend", "popart.options:PopArtOptions"),
            "poptorch": ("poptorch.engine:PopTorchBackend", "poptorch.options:PopTorchOptions")}

PLAIN = "plain"
INFERENCE: Dict[str, Dict[str, Any]] = {
    PLAIN: {},
    "memory": {"half_partial": True, "available_memory_proportion": (0.3,), "prefetch_depth": 2,
               "exchange_memory_target": "balanced", "enable_fast_groupnorm": True,
               "profile": True, "model_cache_path": "CACHE"},
    "IO tiles": {"num_io_tiles": 64, "connection_type": "ondemand"},
    "pipeline": {"splits": True, "available_memory_proportion": (0.3, 0.4), "replicas": 2},
    "offline": {"offline_target_ipu_version": 2, "compile_only": True,
                "normalisation": "host", "eight_bit_io": False},
    "synthetic": {"synthetic": True, "replicas": 2},
}
"""Options and values of a plan that are tried together; by a name."""

TRAINING: Dict[str, Dict[str, Any]] = {
    **INFERENCE,
    "reduction": {
        "replicas": 2, "gradient_accumulation": 2, "device_iterations": 2,
        "offload_optimizer": True, "enable_optimizer_rts": True, "syncless_collectives": "auto",
        "max_bytes_per_tile": 1000, "enable_stochastic_rounding": True},
    "manual recompute": {
        "recompute": "manual", "checkpoint": True, "enable_fp_exceptions": True,
        "disable_stable_batchnorm": True, "loss_scaling": 128.0, "optimizer": "adamw",
        "label_smoothing": 0.1},
    "combined": {"optimizer": "sgd_combined", "loss_velocity_scaling_ratio": 2.0,
                 "auto_loss_scaling": True},
    "mixing": {"mix": MixOptions(0.2, 0.3, 0.7), "recompute": "auto", "optimizer": "rmsprop_tf"},
    "recompute in a pipeline": {"recompute": "auto", "splits": True, "optimizer": "lamb"},
}
ONLY = {"popart": {"cycles": {"report_hw_cycle_count": True}, "IPU model": {"ipu_model": True}},
        "poptorch": {"full precision norms": {"full_precision_norm": True}}}
"""Those of one backend, in inference."""

_PLAN = ("replicas", "gradient_accumulation", "device_iterations", "recompute", "compile_only",
         "synthetic", "normalisation", "eight_bit_io", "full_precision_norm")
_SETUP = ("optimizer", "loss_scaling", "label_smoothing", "mix")


@dataclass(frozen=True)
class Case:
    """A backend, what it computes, and the name of the options."""

    backend: str
    job: str
    family: str
    norm: str
    precision: str
    options: str

    def __str__(self) -> str:
        return " ".join((self.backend, self.job, self.family, self.norm, self.precision,
                         self.options.replace(" ", "-")))


def cases() -> Iterator[Case]:
    """Yield all cases.

    Without options these are all families with all norm layers in all precisions; every set of
    options is tried with all families, and with each of them in all norm layers and precisions; a
    large family without options with each norm layer in one precision, and with one norm layer for
    each set of options.
    """
    for backend, job in itertools.product(BACKENDS, ("inference", "training")):
        sets = TRAINING if job == "training" else {**INFERENCE, **ONLY[backend]}
        for (place, family), (number, options) in itertools.product(
                enumerate(FAMILIES), enumerate(sets)):
            for turn, norm in enumerate(NORMS):
                if family in LARGE and options != PLAIN and turn != number // 3 % len(NORMS):
                    continue
                for precision in (PRECISIONS if options == PLAIN and family not in LARGE else (
                        PRECISIONS[(place + number + turn) % len(PRECISIONS)],)):
                    yield Case(backend, job, family, norm, precision, options)


def run(case: Case) -> None:
    """Compile and run a case on the doubles, which must be importable.

    Raises:
        Exception: it fails, or what it computes is not finite.
    """
    given = dict({**TRAINING, **INFERENCE, **ONLY[case.backend]}[case.options])
    size = FAMILIES[case.family]
    torch.manual_seed(0)
    model = create_model(case.family, num_classes=CLASSES, weights="random",
                         normlayer=case.norm, **(
                             {"groupnorm_group_num": 4} if case.norm == "group" else {})).module
    training = case.job == "training"
    if case.precision == "32.32":  # is refused
        given.pop("auto_loss_scaling", None)
    if given.get("full_precision_norm"):
        given["full_precision_norm"] = case.precision != "32.32"
    plan = ExecutionPlan(micro_batch=2, precision=case.precision, training=training, seed=1,
                         **{name: given.pop(name) for name in _PLAN if name in given})
    if given.pop("splits", False):
        middle = _convolution(model, size)
        plan = replace(plan, pipeline_splits=(middle,), **(
            {"gradient_accumulation": 3} if training else {"device_iterations": 2}))
    if given.pop("checkpoint", False):
        plan = replace(plan, recompute_checkpoints=(_convolution(model, size),))
    if "offline_target_ipu_version" in given:
        plan = replace(plan, compile_only=True)
    setup = {name: given.pop(name) for name in _SETUP if name in given}
    with tempfile.TemporaryDirectory() as folder:
        if given.get("model_cache_path"):
            given["model_cache_path"] = folder
        backend = _backend(case.backend, given)
        for _ in range(2 if "model_cache_path" in given else 1):
            (_train if training else _infer)(backend, model, plan, size, setup)


def _backend(name: str, given: Dict[str, Any]) -> Any:
    made = []
    for place in BACKENDS[name]:
        module, _, attribute = place.partition(":")
        made.append(getattr(importlib.import_module("ipucnn.plugins.backends." + module),
                            attribute))
    return made[0](made[1](**given))


def _convolution(model: torch.nn.Module, size: int) -> str:
    """Return the path of a convolution in the middle of the network."""
    paths: List[str] = [
        path for path in execution_order(model, size) if isinstance(
            model.get_submodule(path.replace("/", ".")), torch.nn.Conv2d)]
    return paths[len(paths) // 2]


def _images(plan: ExecutionPlan, size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (plan.combined_batch, 3, size, size), dtype=torch.uint8,
                           generator=generator)
    return images if plan.eight_bit_io else images / 64 - 2


def _infer(backend: Any, model: torch.nn.Module, plan: ExecutionPlan, size: int,
           _setup: Dict[str, Any]) -> None:
    with backend.inference(model.eval(), plan, size) as session:
        session.compile()
        if plan.compile_only:
            return
        logits = session(None if plan.synthetic else _images(plan, size))
        assert logits.shape == (plan.combined_batch, CLASSES)
        assert plan.synthetic or torch.isfinite(logits).all()


def _train(backend: Any, model: torch.nn.Module, plan: ExecutionPlan, size: int,
           given: Dict[str, Any]) -> None:
    mix = given.get("mix", MixOptions())
    setup = TrainingSetup(
        CrossEntropy(CrossEntropyOptions(given.get("label_smoothing", 0.0))),
        optimizer(given.get("optimizer", "sgd"), 0.01, 1e-4), mix=mix,
        loss_scaling=given.get("loss_scaling", 1.0))
    with backend.training(model, plan, setup, size) as session:
        session.compile()
        if plan.compile_only:
            return
        count = plan.combined_batch
        batch = TrainingBatch(None, None) if plan.synthetic else TrainingBatch(
            _images(plan, size), torch.arange(count) % CLASSES,
            draw(mix, 1, 0, range(count), plan.micro_batch, size) if mix.enabled else None)
        session.set_rates(0.02, setup.loss_scaling)
        session.step(batch, 0)
        if not plan.synthetic:
            with session.detached():
                pass
            for path, value in session.weights().items():
                # gradients of a deep network may overflow in half precision, here as there
                assert plan.half or torch.isfinite(value).all(), path
            session.load(session.weights(), session.state())


def accumulated_losses(strategy: str) -> List[float]:
    """Return the losses of three updates in 16.16, each of 512 micro-batches, on PopART's double.

    Args:
        strategy: when sums of gradients are divided: "Running" or "Post".

    Raises:
        NonFiniteLoss: a sum overflowed.
    """
    import popart

    settings = importlib.import_module("ipucnn.plugins.backends.popart.training_settings")
    before, settings._division = settings._division, lambda *_: getattr(
        popart.MeanReductionStrategy, strategy)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 4, stride=4), torch.nn.ReLU(),
                                        torch.nn.Flatten(), torch.nn.Linear(16, CLASSES))
        plan = ExecutionPlan(micro_batch=1, gradient_accumulation=512, precision="16.16",
                             training=True, seed=1)
        setup = TrainingSetup(CrossEntropy(), optimizer("sgd", 0.3, 0.0, momentum=0.0),
                              loss_scaling=4096.0)
        image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8,
                              generator=torch.Generator().manual_seed(0))
        batch = TrainingBatch(image.expand(512, -1, -1, -1).contiguous(),
                              torch.full((512,), 2))
        with _backend("popart", {}).training(model, plan, setup, 8) as session:
            session.compile()
            return [round(session.step(batch, number).loss, 4) for number in range(3)]
    finally:
        settings._division = before


def _half_figures() -> Dict[str, Any]:
    try:
        after_the_sum: Any = accumulated_losses("Post")
    except NonFiniteLoss as error:
        after_the_sum = error.message
    return {"Running": accumulated_losses("Running"), "Post": after_the_sum}


def tried(case: Case) -> Tuple[Case, str]:
    """Return a case and how it failed, or an empty string."""
    failure = ""
    try:
        run(case)
    except Exception as error:  # the matrix continues, and reports every failure
        failure = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    if "poptorch" in sys.modules:  # its double keeps every program
        sys.modules["poptorch._machine"].MACHINE.programs.clear()
    gc.collect()
    return case, failure


def main() -> int:
    """Run all cases, or those of one backend, and write their numbers and every failure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", help="JSON file that is written")
    parser.add_argument("--match", default="", help="only cases whose name has this text")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--resume", action="store_true",
                        help="continue the run whose first cases the result has")
    given = parser.parse_args()
    sys.path.insert(0, str(DOUBLES))
    os.environ["POPTORCH_DOUBLE_TORCH"] = "any"
    torch.set_num_threads(1)
    chosen = [case for case in cases() if given.match in str(case)]
    random.Random(0).shuffle(chosen)  # so that a part of the run is a sample of all
    result, begun = Path(given.result), time.perf_counter()
    found: Dict[str, Any] = {"cases": 0, "failures": {}, "by_options": {}, "seconds": 0}
    if given.resume and result.exists():
        found = json.loads(result.read_text())
        begun -= found["seconds"]
    found = {"command": "make test-matrix", "cases_in_all": len(chosen),
             "families": list(FAMILIES), "norm_layers": list(NORMS),
             "precisions": list(PRECISIONS),
             "losses_of_updates_of_512_micro_batches_in_16.16": _half_figures(), **found}
    gc.freeze()  # what is imported is not looked at after each case
    # processes of one thread, which may fork
    with multiprocessing.get_context("fork").Pool(given.jobs) as pool:
        for case, failure in pool.imap(tried, chosen[found["cases"]:]):
            key = f"{case.backend} {case.job}, {case.options}"
            found["by_options"][key] = found["by_options"].get(key, 0) + 1
            found["cases"] += 1
            if failure:
                found["failures"][str(case)] = failure
                print(case, failure, file=sys.stderr, flush=True)
            if found["cases"] % 20 == 0 or found["cases"] == len(chosen):
                print(f"{found['cases']} of {len(chosen)}", file=sys.stderr, flush=True)
                found["seconds"] = round(time.perf_counter() - begun)
                result.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if found["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
