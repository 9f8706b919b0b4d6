"""Benchmarks a model with images that are already on the device."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Callable, Dict

from ipucnn.core.execution.session_checks import compiled, opened
from ipucnn.core.execution.training_session import TrainingBatch, TrainingSession
from ipucnn.core.exit_codes import INTERRUPTED
from ipucnn.core.options.building import build
from ipucnn.core.registry.registry import Registry
from ipucnn.inference.job import run
from ipucnn.inference.options import RunOptions
from ipucnn.inference.prepared_run import prepare as prepare_inference
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.preparation import prepare as prepare_training

BATCH_SIZE = 16
SECONDS = 5.0
CALLS = 50
"""A measurement ends after this many seconds or host calls, whichever comes first."""


@dataclass(frozen=True)
class Compute:
    """The throughput of a model.

    Attributes:
        model, backend, device: canonical names; the device in words.
        precision: of the computation.
        batch_size: micro-batch.
        images_per_second: of training steps or of inference, without data.
    """

    model: str
    backend: str
    device: str
    precision: str
    batch_size: int
    images_per_second: float


def training(given: Dict[str, Any], registry: Registry) -> Callable[[], Compute]:
    """Check options, and return a function that measures training steps.

    Args:
        given: options of `ipucnn train`.
        registry: where names are looked up.

    Raises:
        IpucnnError: anything the user can act on.
    """
    prepared = prepare_training(build(TrainOptions, {
        **given, "data": "synthetic", "no_validation": True, "iterations": 1}), registry)
    plan, built, batch = prepared.plan, prepared.built, TrainingBatch(None, None)

    def measured() -> Compute:
        with opened(prepared.chosen.backend.training(
                built.module, plan, prepared.setup, built.input_size),
                TrainingSession, prepared.chosen.plugin) as session:
            compiled(session, prepared.chosen.plugin)
            session.set_rates(prepared.options.optimisation.rate, prepared.scaling.at(0))
            session.step(batch, 0)  # the first call allocates and chooses kernels
            begin, calls, seconds = time.perf_counter(), 0, 0.0
            while calls < CALLS and seconds < SECONDS:
                calls += 1
                session.step(batch, calls * plan.device_iterations)
                seconds = time.perf_counter() - begin
        return Compute(built.spec.name, prepared.chosen.spec.name, prepared.chosen.probe.device,
                       plan.precision, plan.micro_batch, calls * plan.combined_batch / seconds)

    return measured


def inference(given: Dict[str, Any], registry: Registry) -> Callable[[], Compute]:
    """Check options, and return a function that measures inference; see `training`.

    Args:
        given: options of `ipucnn run`.
        registry: where names are looked up.
    """
    options = build(RunOptions, {
        **given, "data": "synthetic", "weights": "random", "iterations": CALLS, "warmup": 1,
        "time_limit": SECONDS})
    prepare_inference(options, registry)

    def measured() -> Compute:
        result = run(options, registry)
        if result.stopped_by in INTERRUPTED:
            raise KeyboardInterrupt(result.stopped_by)
        rate = result.compute_throughput
        return Compute(result.model, result.backend, result.device, result.plan["precision"],
                       result.plan["micro_batch"], rate.mean if rate else 0.0)

    return measured
