"""Selects the micro-batch of a run by measurement: `--batch-size auto`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from ipucnn.core.errors import UnsupportedNetworkError
from ipucnn.core.execution.selection import others_can
from ipucnn.core.execution.shipped_profiles import fitted_to_machine
from ipucnn.core.registry.registry import Registry
from ipucnn.data import ImageDataset
from ipucnn.inference import backend_choice
from ipucnn.models import batch_of_inference
from ipucnn.models.batch_of_inference import Inference

if TYPE_CHECKING:
    from ipucnn.inference.options import RunOptions
    from ipucnn.inference.prepared_run import Job


def with_measured_batch(options: RunOptions, registry: Registry, images: Optional[ImageDataset],
                        prepare: Callable[..., Job], open_session: Callable[..., Any],
                        ) -> Tuple[RunOptions, str]:
    """Return the options with a number for `--batch-size auto`, and a note.

    Every size is measured with the backend and the options that a run of this size uses, including
    those that `--tune` has found. They are part of the key of the stored measurement.

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

    def prepared(size: int) -> Job:
        return prepare(options.with_values(batch_size=size), registry, refusals, images)

    while True:
        first = prepared(1)
        inference = Inference(first.options, first.chosen, first.plan, first.built,
                              len(first.dataset) if first.data.finite else None, registry)
        tuned = _tuned(options, first.data.on_device, inference.most, registry)
        try:
            found = inference.fastest(lambda size: open_session(prepared(size), []), tuned)
            return options.with_values(batch_size=found.size), found.note
        except UnsupportedNetworkError as error:  # as a run, which then reports it
            refusals[first.chosen.spec.name] = error.message
            if not first.chosen.why or not others_can(options, first.executed, registry, refusals):
                raise


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
        "several instances": options.execution.instances > 1,
        "'--tune', which measures with one micro-batch": options.execution.tune,
        "'--onnx', whose file may have a micro-batch of its own": options.network.onnx,
        "8-bit integers": options.execution.precision == "int8"}
    batch_of_inference.check(options, [reason for reason, holds in reasons.items() if holds])
