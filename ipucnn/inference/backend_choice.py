"""Chooses the backend of a run and its options by a measurement on this machine."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Mapping, Optional, Tuple

from ipucnn.core.errors import IpucnnError
from ipucnn.core.execution.launching import launched
from ipucnn.core.execution.offers import lacks
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import Chosen, choose_backend
from ipucnn.core.names import key
from ipucnn.core.options.owners import AUTO
from ipucnn.core.registry.records import BackendSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.inference.measured import Measured, Record
from ipucnn.inference.options import RunOptions
from ipucnn.inference.variants import as_chosen


@dataclass(frozen=True)
class Choice:
    """A choice by measurement.

    Attributes:
        options: of the run, with the backend and its options.
        chosen: the backend; `why` is empty if the user named it.
        rates: images per second by the options that were measured.
        notes: notes for the user.
    """

    options: RunOptions
    chosen: Chosen
    rates: Mapping[str, float]
    notes: Tuple[str, ...] = ()


def choice(options: RunOptions, plan: ExecutionPlan, registry: Registry,
           refusals: Mapping[str, str], measured: Optional[Measured] = None) -> Optional[Choice]:
    """Return the fastest measured backend and options, or None without a measurement.

    Args:
        options: of the run.
        plan: of this process.
        registry: where names are looked up.
        refusals: backends that cannot execute the network.
        measured: a new measurement; the stored one if None.
    """
    name = options.execution.backend
    if options.execution.tune is False or not alone(options, plan):
        return None
    only = ""
    with suppress(IpucnnError):  # missing requirements are reported elsewhere
        if key(name) != AUTO:
            only = registry.get_typed(BackendSpec, name).name
        fresh = measured is not None
        for backend in (only or AUTO, AUTO):
            measured = measured or Record.of(options, registry, backend).read(registry)
        if measured is None or options.execution.precision not in (None, measured.precision):
            return None
        executed = replace(plan, precision=measured.precision)
        lacking = {rate.backend for rate in measured.rates if lacks(
            options, executed, registry.get_typed(BackendSpec, rate.backend), registry)}
        best = measured.best({*refusals, *lacking}, only)
        if best is None:
            return None
        made = as_chosen(options, best.backend, best.options, measured.precision, registry)
        chosen = choose_backend(made, executed, registry)
        own = chosen.backend.probe_for(replace(plan, precision="32.32")).precision
        further = "" if measured.precision in (own, options.execution.precision) \
            else f" --precision {measured.precision}"
        rates = {rate.words: rate.images_per_second for rate in measured.rates}
        notes = (*(f"not measured: {reason}" for reason in measured.left_out), *measured.notes)
        if not only:
            return Choice(made, replace(chosen, why=measured.why(best, further)), rates, notes)
        own_rates = tuple(rate for rate in measured.rates if rate.backend == only)
        if fresh or len(own_rates) > 1:
            notes = (replace(measured, rates=own_rates).why(best, further), *notes)
        return Choice(made, chosen, rates, notes)
    return None


def alone(options: RunOptions, plan: ExecutionPlan) -> bool:
    """Return whether one process computes the network; several could select different engines."""
    return options.execution.instances == 1 and launched() is None and plan.stages == 1
