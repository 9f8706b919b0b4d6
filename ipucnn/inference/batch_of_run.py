"""Selects the micro-batch of a run by measurement: `--batch-size auto`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from ipucnn.core.errors import UnsupportedNetworkError, UsageError
from ipucnn.core.execution.launching import launched
from ipucnn.core.execution.selection import others_can
from ipucnn.core.execution.shipped_profiles import fitted_to_machine
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data import ImageDataset
from ipucnn.inference import backend_choice
from ipucnn.models.batch_search import Call, Found, Record, search
from ipucnn.onnx.examples import random_images

if TYPE_CHECKING:
    from ipucnn.inference.options import RunOptions
    from ipucnn.inference.prepared_run import Job

_MOST = 256
"""Largest micro-batch to measure; larger ones were not faster for any network."""


def with_measured_batch(options: RunOptions, registry: Registry, images: Optional[ImageDataset],
                        prepare: Callable[..., Job], open_session: Callable[..., Any],
                        ) -> Tuple[RunOptions, str]:
    """Return the options with a number for `--batch-size auto`, and a note.

    Args:
        options: of the run.
        registry: where names are looked up.
        images: the images, instead of those that the options name.
        prepare: prepares a run with given options.
        open_session: returns the session of a prepared run.

    Raises:
        UsageError: it cannot be measured for this run.
    """
    _check(options)
    refusals: Dict[str, str] = {}
    while True:
        first = prepare(options.with_values(batch_size=1), registry, refusals, images)
        try:
            found = _remembered(first, options, registry, partial(prepare, registry=registry,
                                refusals=refusals, images=images), open_session)
            return options.with_values(batch_size=found.size), found.note
        except UnsupportedNetworkError as error:  # as a run, which then reports it
            refusals[first.chosen.spec.name] = error.message
            if not first.chosen.why or not others_can(options, first.executed, registry, refusals):
                raise


def _remembered(first: Job, options: RunOptions, registry: Registry,
                prepare: Callable[..., Job], open_session: Callable[..., Any]) -> Found:
    """Return the micro-batch of the stored measurement; measure if there is none.

    Every size is measured with the backend and the options that a run of this size uses, including
    those that `--tune` has found. They are part of the key of the stored measurement.
    """
    if not first.chosen.spec.has("batch-size-auto"):
        raise UsageError(f"'--batch-size auto' cannot be used with backend "
                         f"{first.chosen.spec.name!r}, for which every size is compiled again",
                         "give a number: 'ipucnn plan' shows what fits into the device")
    calls = options.execution.device_iterations * options.execution.replicas
    most = max(1, min(_MOST, len(first.dataset) // calls)) if first.data.finite else _MOST
    record = Record.of(_structure(first), {
        "job": "inference", "backend": first.chosen.spec.name,
        "device": first.chosen.probe.device, "precision": first.plan.precision,
        "size": first.built.input_size, "pixels": first.plan.pixels, "most": most,
        "calls": calls, "norm": options.execution.full_precision_norm,
        "tuned": _tuned(options, first.data.on_device, most, registry),
        "options": [(kind, item.name, value) for kind, item, value in options.plugins.declared()]})
    found = record.read()
    if found is None:
        found = _found(options, most, prepare, open_session)
        record.write(found)
    return found


def _tuned(options: RunOptions, on_device: bool, most: int,
           registry: Registry) -> List[Tuple[int, str, str]]:
    """Return the sizes whose backend is chosen by a measurement, with that and its options."""
    options = fitted_to_machine(options, on_device, registry)
    found = []
    for size in (1 << power for power in range(most.bit_length())):
        own = options.with_values(batch_size=size)
        choice = backend_choice.choice(own, own.plan(on_device), registry, {})
        if choice is not None:
            name = choice.chosen.spec.name
            found.append((size, name, repr(choice.options.plugins.of("backend", name))))
    return found


def _check(options: RunOptions) -> None:
    reasons = {
        "several instances": options.execution.instances > 1 or launched() is not None,
        "'--tune', which measures with one micro-batch": options.execution.tune,
        "'--onnx', whose file may have a micro-batch of its own": bool(options.network.onnx),
        "'--pipeline-splits'": bool(options.execution.pipeline_splits),
        "8-bit integers": options.execution.precision == "int8"}
    for reason, holds in reasons.items():
        if holds:
            raise UsageError(f"'--batch-size auto' cannot be used with {reason}", "give a number")


def _structure(job: Job) -> str:
    network: Dict[str, Any] = asdict(job.options.network)
    for name in ("weights", "random_weights", "ema", "weights_partial"):  # only values differ
        network.pop(name, None)
    spec = job.registry.get_typed(ModelSpec, job.options.network.model)
    target = spec.target if isinstance(spec.target, str) else getattr(
        spec.target, "__qualname__", type(spec.target).__qualname__)
    return repr((spec.name, target, sorted(network.items()), job.built.num_outputs))


def _found(options: RunOptions, most: int, prepare: Callable[..., Job],
           open_session: Callable[..., Any]) -> Found:
    with ExitStack() as held:

        def caller(size: int) -> Call:
            held.close()  # the memory of the size before
            job = prepare(options.with_values(batch_size=size))
            session = held.enter_context(open_session(job, []))
            session.compile()
            side = job.built.input_size
            shape = (session.samples_per_call, 3, side, side)
            pixels: Any = random_images(
                shape, "uint8" if job.plan.pixels == "uint8" else "float32", 0)
            # channels last in memory, as in loaders
            pixels = pixels.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
            if not session.takes_arrays:
                import torch

                pixels = torch.from_numpy(pixels)
            count = max(1, session.in_flight)

            def calls() -> None:
                for wait in [session.start(pixels) for _ in range(count)]:
                    wait()

            return calls, count * session.samples_per_call

        return search(caller, 1, most)
