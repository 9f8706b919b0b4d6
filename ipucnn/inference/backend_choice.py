"""Selects the backend of a run and its options by measurements on this machine."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, List, Mapping, Optional, Tuple

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.launching import launched
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import Chosen, choose_backend
from ipucnn.core.names import key
from ipucnn.core.options.owners import AUTO
from ipucnn.core.registry.records import BackendSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.inference.measured import Measured, Record, given_options
from ipucnn.inference.options import RunOptions
from ipucnn.inference.session_rate import images_per_second, random_call
from ipucnn.inference.tuning import LIMIT, measure
from ipucnn.inference.variants import as_chosen, variants_of

if TYPE_CHECKING:
    from ipucnn.core.progress import Progress
    from ipucnn.inference.prepared_run import Job


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
    if options.execution.tune is False or not _alone(options, plan):
        return None
    only = ""
    with suppress(IpucnnError):  # missing requirements are reported elsewhere
        if key(name) != AUTO:
            only = registry.get_typed(BackendSpec, name).name
        fresh = measured is not None
        for backend in (only or AUTO, AUTO):
            measured = measured or Record.of(options, registry, backend).read(registry)
        best = measured.best(refusals, only) if measured else None
        if measured is None or best is None \
                or options.execution.precision not in (None, measured.precision):
            return None
        made = as_chosen(options, best.backend, best.options, measured.precision, registry)
        executed = replace(plan, precision=measured.precision)
        chosen = choose_backend(made, executed, registry)
        own = chosen.backend.probe_for(replace(plan, precision="32.32")).precision
        further = "" if measured.precision in (own, options.execution.precision) \
            else f" --precision {measured.precision}"
        rates = {rate.words: rate.images_per_second for rate in measured.rates}
        notes = tuple(f"not measured: {reason}" for reason in measured.left_out)
        if not only:
            return Choice(made, replace(chosen, why=measured.why(best, further)), rates, notes)
        own_rates = tuple(rate for rate in measured.rates if rate.backend == only)
        if fresh or len(own_rates) > 1:
            notes = (replace(measured, rates=own_rates).why(best, further), *notes)
        return Choice(made, chosen, rates, notes)
    return None


def _alone(options: RunOptions, plan: ExecutionPlan) -> bool:
    """Return whether one process computes the network; several could select different engines."""
    return options.execution.instances == 1 and launched() is None and plan.stages == 1


def asked(options: RunOptions, registry: Registry, progress: Progress) -> Optional[Measured]:
    """Measure backends if `--tune` is set.

    Raises:
        UsageError: several processes share the run, or the network.
    """
    if not options.execution.tune:
        return None
    if not _alone(options, options.plan(synthetic=False)):
        raise UsageError("'--tune' measures one process that computes the whole network",
                         "leave it out")
    return measure(options, registry, progress=progress)


MANY = 2048
"""Minimum number of images of a run for an automatic measurement."""

SHARE, LEAST = 0.05, 10.0
"""Maximum share of a run for a measurement, and the minimum seconds of a useful measurement."""


def may_measure(job: Job) -> bool:
    """Return whether a run of this kind and number of images is measured without '--tune'."""
    execution = job.options.execution
    return execution.tune is None and not job.executed.compile_only and job.images >= MANY \
        and job.data.finite and job.executed.precision != "int8" \
        and _alone(job.options, job.executed) and _varies(job)


def time_for(job: Job, session: InferenceSession) -> float:
    """Return the seconds that a measurement during a run may take; 0 if it is not worthwhile.

    Args:
        job: the run.
        session: of the run, compiled.
    """
    if not may_measure(job):
        return 0.0
    execution = job.options.execution
    images = random_call(session, job.executed, job.built.input_size)
    seconds = job.images / images_per_second(session, images)
    seconds = SHARE * min(seconds, execution.time_limit or seconds)
    return min(LIMIT, seconds / 2) if seconds >= LEAST else 0.0  # as long for the calls


WORTH_A_NOTE = 20.0
"""Minimum duration in seconds of a run for a note that recommends '--tune'."""


def hint(job: Job, seconds: float) -> List[str]:
    """Return the note on `--tune` for a run of this duration, if it is useful."""
    if seconds < WORTH_A_NOTE or job.options.execution.tune is not None or job.measured \
            or not _alone(job.options, job.executed) or not _varies(job):
        return []
    return ["no measurement for this network, batch and machine: '--tune' finds the fastest "
            "backend and options, which later runs use"]


def _varies(job: Job) -> bool:
    """Return whether there are several candidates for a run."""
    try:
        variants = variants_of(job.chosen, job.executed, given_options(job.options))
    except Exception:  # of a plugin: a measurement would report it
        return False
    return len(variants) > 1 or bool(variants and job.chosen.why)
