"""`ipucnn` as a contender of `ipucnn bench`: its own jobs, measured in turns."""

from __future__ import annotations

import math
import tempfile
import time
from typing import Any, Dict, List, Optional, Tuple

from ipucnn.benchmarking.case import FILES, SYNTHETIC, Case, Facts, Link, serve
from ipucnn.core.execution.selection import Chosen
from ipucnn.core.options.building import build
from ipucnn.core.progress import CALLBACK, Listener
from ipucnn.core.registry.registry import registry
from ipucnn.inference.host_calls import HostCalls, batches
from ipucnn.inference.job import attempted, run
from ipucnn.inference.options import RunOptions
from ipucnn.inference.prepared_run import Job, session_of

FIRST_UPDATES = 2
"""Updates of a training before it is ready: they allocate memory and choose kernels."""

AHEAD = 4
"""Updates at the beginning of a turn that are not counted where images come from files: a loader
has prepared some of them in the pause before."""

ENDLESS = 10 ** 6


def inference(backend: str, case: Case, link: Link) -> Facts:
    """Measure `ipucnn run` on a backend; see `Link`.

    Images of the device are computed by the host calls of a run, whose session stays open. Of
    other images each turn is a whole run, timed from the first image to the last.

    Raises:
        IpucnnError: it cannot run there.
    """
    options = run_options(backend, case)
    if case.data == SYNTHETIC:
        return attempted(options, registry(), None, lambda job: _of_session(job, link))
    return _of_runs(options, link)


def tuning(backend: str, case: Case, link: Link) -> Facts:
    """Measure what `--backend auto` considers, as `run --tune` does; the result is stored.

    Raises:
        IpucnnError: no backend can be measured.
    """
    from ipucnn.inference.tuning import measure

    options = run_options(backend, case).with_values(tune=True)
    found = measure(options, registry(), case.limit)
    link.ready()
    link.wait()
    return {"precision": found.precision, "left_out": list(found.left_out),
            "rates": [(rate.label, rate.images_per_second) for rate in found.rates]}


def run_options(backend: str, case: Case) -> RunOptions:
    """Return the options of a run of a case on a backend."""
    given: Dict[str, Any] = {"model": case.model, "weights": "random", "backend": backend,
                             "batch_size": case.batch_size, "data": case.data}
    if case.precision:
        given["precision"] = case.precision
    if case.data != SYNTHETIC:
        given["iterations"] = max(1, case.samples // case.batch_size)
    if case.data == FILES:
        given.update(data="real", data_dir=case.folder)  # in any folders, as the others read them
    return build(RunOptions, given)


def _of_session(job: Job, link: Link) -> Facts:
    """Measure host calls of a session that stays open."""
    notes: List[str] = []
    with session_of(job, notes) as session:
        compiled = session.compile()
        in_flight = max(1, session.in_flight)
        size = session.samples_per_call

        def calls(count: int) -> Tuple[float, float]:
            begin = time.perf_counter()
            made = HostCalls(job.plan, session, batches(None, count * size, size), None,
                             lambda _: None)
            while made.execute(lambda *_: None):
                pass
            return made.images, time.perf_counter() - begin

        for _ in range(2):  # the first allocates memory and chooses kernels
            images, seconds = calls(in_flight)
        rate = images / seconds

        def measure(wanted: float) -> Tuple[float, float]:
            nonlocal rate
            count = in_flight * max(1, round(wanted * rate / size / in_flight))
            if size / rate < wanted:  # others have used the caches: see `peers.inference`
                calls(in_flight)
            found = calls(count)
            rate = found[0] / found[1]
            return found

        serve(link, measure)
        return {**_facts(job.chosen, session.facts), "compile_seconds": compiled,
                "in_flight": in_flight, "precision": job.executed.precision}


def _facts(chosen: Chosen, session: Dict[str, Any]) -> Facts:
    return {"backend": chosen.spec.name, "device": chosen.probe.device, "why": chosen.why,
            "session": session}


def _of_runs(options: RunOptions, link: Link) -> Facts:
    """Measure whole runs, without their preparation."""
    last: List[Any] = []

    def whole(_: float) -> Tuple[float, float]:
        times: List[float] = []

        def progress(phase: str, *_: Any) -> None:
            if phase == "run":
                times.append(time.perf_counter())

        result = run(options, progress=progress)
        last[:] = [result]
        return result.images, times[-1] - times[0]

    whole(0.0)  # fills caches
    serve(link, whole)
    result = last[0]
    return {"backend": result.backend, "device": result.device, "session": result.session,
            "compile_seconds": result.compile_seconds, "precision": result.plan["precision"],
            "data_wait_share": result.data_wait_share}


class _Paused(Listener):
    """Pauses a training between the turns that are measured.

    Args:
        link: through which it is measured.
        batch: images per update.
        ahead: updates of a turn that are not counted.
    """

    def __init__(self, link: Link, batch: int, ahead: int) -> None:
        self._link, self._batch, self._ahead = link, batch, ahead
        self._count = 0
        self._wanted: Optional[float] = None
        self._begin = 0.0

    def stop(self) -> str:
        """Wait at the end of a measurement; called after every update."""
        self._count += 1
        if self._wanted is None:
            if self._count < FIRST_UPDATES:
                return ""
            self._link.ready()
            return self._next()
        done, now = self._count - self._ahead, time.perf_counter()
        if done == 0:
            self._begin = now
        if done < 1 or now - self._begin < self._wanted:
            return ""
        self._link.done(done * self._batch, now - self._begin)
        return self._next()

    def _next(self) -> str:
        self._wanted = self._link.wait()
        self._count, self._begin = 0, time.perf_counter()
        return CALLBACK if self._wanted is None else ""


def training(backend: str, case: Case, link: Link) -> Facts:
    """Measure `ipucnn train`, the whole of it, which pauses between turns.

    Raises:
        IpucnnError: it cannot train there.
    """
    from ipucnn.training.job import train
    from ipucnn.training.options.train_options import TrainOptions

    with tempfile.TemporaryDirectory() as folder:
        given: Dict[str, Any] = {
            "model": case.model, "backend": backend, "precision": case.precision,
            "batch_size": case.batch_size, "optimizer": "sgd", "log_dir": folder,
            "validation_mode": "none", "no_checkpoints": True, "epoch": ENDLESS}
        if case.data == FILES:
            given.update(data="image_folder", data_dir=case.folder,
                         input_size=case.preprocessing.input_size)
        else:
            given.update(data="synthetic", iterations=1000, logs_per_epoch=100)
        result = train(build(TrainOptions, given), listener=_Paused(
            link, case.batch_size, AHEAD if case.data == FILES else 0))
    return {"backend": result.backend, "device": result.device, "precision":
            result.plan["precision"], "data_wait_share": _finite(result.data_wait_share)}


def _finite(value: Optional[float]) -> Optional[float]:
    return value if value is not None and math.isfinite(value) else None
