"""Decides whether a run is measured: for `--tune`, or because it is long enough."""

from __future__ import annotations

from typing import List, Optional

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.progress import Progress
from ipucnn.core.registry.registry import Registry
from ipucnn.inference.backend_choice import alone
from ipucnn.inference.measured import Measured, given_options
from ipucnn.inference.options import RunOptions
from ipucnn.inference.prepared_run import Job
from ipucnn.inference.session_rate import images_per_second, random_call
from ipucnn.inference.tuning import LIMIT, measure
from ipucnn.inference.variants import variants_of


def requested(options: RunOptions, registry: Registry, progress: Progress) -> Optional[Measured]:
    """Measure backends if `--tune` is set.

    Raises:
        UsageError: several processes share the run, or the network.
    """
    if not options.execution.tune:
        return None
    if not alone(options, options.plan(synthetic=False)):
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
        and alone(job.options, job.executed) and _varies(job)


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
            or not alone(job.options, job.executed) or not _varies(job):
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
