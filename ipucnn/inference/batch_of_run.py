"""Selects the micro-batch of a run by measurement: `--batch-size auto`."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.launching import launched
from ipucnn.core.registry.records import ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data import ImageDataset
from ipucnn.models.batch_search import Found, Record, search
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
    first = prepare(options.with_values(batch_size=1), registry, images=images)
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
        "options": [(kind, item.name, value) for kind, item, value in options.plugins.declared()]})
    found = record.read()
    if found is None:
        found = _found(options, registry, images, most, (prepare, open_session))
        record.write(found)
    note = f"{found.note} (backend {first.chosen.spec.name!r})"
    return options.with_values(batch_size=found.size), note


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


def _found(options: RunOptions, registry: Registry, images: Optional[ImageDataset], most: int,
           how: Tuple[Callable[..., Job], Callable[..., Any]]) -> Found:
    prepare, open_session = how
    with ExitStack() as held:

        def caller(size: int) -> Callable[[], Any]:
            held.close()  # the memory of the size before
            job = prepare(options.with_values(batch_size=size), registry, images=images)
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
            return lambda: session(pixels)

        return search(caller, 1, most)
