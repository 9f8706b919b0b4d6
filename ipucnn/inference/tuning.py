"""Finds the fastest backend and its options for a network on this machine, by measurement."""

from __future__ import annotations

import logging
import statistics
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Iterator, List, Mapping, Optional, Tuple

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.selection import (
    Chosen,
    choose_backend,
    lacks,
    probed,
    rank_of,
    settled,
)
from ipucnn.core.execution.shipped_profiles import fitted_to_machine
from ipucnn.core.names import key
from ipucnn.core.options.owners import AUTO
from ipucnn.core.registry.records import BackendSpec, ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data.given import GivenImages
from ipucnn.inference.measured import Measured, Rate, Record, given_options, source_of
from ipucnn.inference.options import RunOptions
from ipucnn.inference.session_rate import images_per_second, random_call
from ipucnn.inference.variants import as_chosen, variants_of
from ipucnn.onnx.network_of_run import preprocessing_of_run, read_stored

if TYPE_CHECKING:
    from ipucnn.core.progress import Progress

log = logging.getLogger("ipucnn.tuning")

ROUNDS, PAUSE = 4, 0.05
"""Number of the interleaved rounds in which each candidate is measured, and seconds before each
measurement: idle threads of the one before may still wait actively."""

LIMIT, CALLING = 30.0, 10.0
"""Seconds after which no further candidate is compiled, and maximum seconds of calls after which no
further round begins."""

SLOW, HOPELESS = 0.6, 0.3
"""Shares of the fastest rate below which a candidate is measured only once, and below which no
other options of its backend are measured."""

CLOSE, FINALS = 0.93, 10
"""Share of the fastest rate above which candidates are measured in further rounds, and the number
of these: they differ by less than the measurements of a few rounds."""

CALLS = 64
"""Maximum number of host calls in flight for a candidate, as in a long run."""


def measure(options: RunOptions, registry: Registry, limit: float = LIMIT,
            progress: Optional[Progress] = None) -> Measured:
    """Measure the usable backends that support a run, and store the result for later runs.

    With `--backend auto`, all backends that have the given options are measured, otherwise the
    named backend; each with the values of `Backend.variants` for options that are not given.
    Candidates are called in turn, with random images of the run's type and micro-batch.

    Args:
        options: of the run. Its images are not read, except to calibrate 8-bit integers.
        registry: where names are looked up.
        limit: seconds after which no other candidate is compiled.
        progress: receives the phase `tune`.

    Raises:
        IpucnnError: no backend can be used, or none could be measured.
    """
    begin = time.perf_counter()
    progress = progress or (lambda *_: None)
    options = fitted_to_machine(options, False, registry)
    contest = _Contest(_without_images(options), registry, limit, progress)
    with closing(contest):
        rates = contest.rates()
    if not rates:
        raise IpucnnError("no backend could be measured", "; ".join(contest.left_out))
    measured = Measured(contest.precision, tuple(rates), tuple(contest.left_out),
                        round(time.perf_counter() - begin, 1))
    log.debug("measured in %.1f s: %s", measured.seconds, rates)
    if len(rates) > 1 or options.execution.tune or not contest.out_of_time:
        for precision in contest.spellings():
            Record.of(options.with_values(precision=precision), registry,
                      options.execution.backend).write(measured)
    return measured


@dataclass
class _Candidate:
    """A backend with values of its options.

    Attributes:
        backend: its name.
        options: values of its options.
        order: the place of its backend, and that among its variants.
    """

    backend: str
    options: Mapping[str, Any]
    order: Tuple[int, int]
    session: Optional[InferenceSession] = None
    images: Any = None
    rates: List[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Images per second: the median over rounds; the first one is for warming up."""
        return statistics.median(self.rates[1:] or self.rates)

    @property
    def label(self) -> str:
        """Its name in messages."""
        return Rate(self.backend, self.options, 0.0).label

    def close(self) -> None:
        """Free the device."""
        if self.session is not None:
            self.session.close()
            self.session = self.images = None


class _Contest:
    """Candidates that are measured in turn.

    Attributes:
        precision: the ``compute.master`` pair in which all of them compute.
        left_out: why others were not measured, a line each.
        out_of_time: whether candidates are left out because the time was up.
    """

    def __init__(self, options: RunOptions, registry: Registry, limit: float,
                 progress: Progress) -> None:
        self._options, self._registry = options, registry
        self._deadline, self._progress = time.perf_counter() + limit, progress
        self.left_out: List[str] = []
        self.out_of_time = False
        self._calling = min(CALLING, limit)
        stored = read_stored(options.network.onnx,
                             registry.get_typed(ModelSpec, options.network.model),
                             options.execution.batch_size)
        self._plan = replace(
            options.plan(synthetic=False),
            preprocessing=preprocessing_of_run(stored, options.network, registry))
        self._first = choose_backend(options, self._plan, registry)
        self._usual = settled(self._first, self._plan)[1].precision
        if options.execution.precision is None:
            self._first, self._plan = settled(self._first, self._plan)
        self.precision = self._plan.precision
        self._candidates: List[_Candidate] = []

    def close(self) -> None:
        """Close all candidates."""
        for candidate in self._candidates:
            candidate.close()

    def spellings(self) -> List[Optional[str]]:
        """Return the values of `--precision` for which the measurement is valid; None is unset."""
        return [self.precision, *([None] if self.precision == self._usual else [])]

    def rates(self) -> List[Rate]:
        """Measure the candidates, and return their rates in the order of preference.

        Raises:
            UsageError: the default backend of the run cannot be measured.
        """
        self._candidates = self._found()
        for number, candidate in enumerate(self._candidates):
            self._progress("tune", number, len(self._candidates))
            if self._worth_opening(candidate) and self._open(candidate):
                self._measure([candidate])
        self._measure_in_rounds(self._candidates, ROUNDS)
        close = CLOSE * self._best
        self._measure_in_rounds(
            [one for one in self._candidates if one.rates and one.rate >= close], FINALS)
        return [Rate(one.backend, one.options, round(one.rate, 2),
                     source_of(one.backend, self._registry))
                for one in sorted(self._candidates, key=lambda one: one.order) if one.rates]

    def _found(self) -> List[_Candidate]:
        """Return the candidates: the first variant of every backend, then the others."""
        given = given_options(self._options)
        found: List[_Candidate] = []
        for place, chosen in enumerate(self._backends()):
            name = chosen.spec.name
            try:
                variants = variants_of(chosen, self._plan, given)
            except Exception as error:
                self._leave_out(name, error)
                continue
            if not variants and chosen.spec is self._first.spec:
                raise UsageError(f"backend {name!r} cannot be measured by '--tune'",
                                 "leave it out, or name another backend with '--backend'")
            found += [_Candidate(name, values, (place, number))
                      for number, values in enumerate(variants)]
        return sorted(found, key=lambda one: (min(one.order[1], 1), one.order))

    def _backends(self) -> Iterator[Chosen]:
        """Yield the usable backends that support the run, the preferred ones first."""
        yield self._first
        if key(self._options.execution.backend) != AUTO:
            return
        options, registry = self._options, self._registry
        names = registry.names("backend")
        if options.execution.tune:  # explicit, so that third-party plugins are loaded, too
            names += [row.name for row in registry.rows("backend")
                      if row.spec is not None and row.name not in names]
        found = []
        for name in names:
            try:
                spec = registry.get_typed(BackendSpec, name)
                if not spec.inference or spec is self._first.spec \
                        or lacks(options, self._plan, spec, registry):
                    continue
                chosen = probed(spec, options, self._plan, registry)
            except Exception as error:
                self._leave_out(name, error)
                continue
            if chosen.probe.usable:
                found.append(chosen)
        yield from sorted(found, key=lambda chosen: -rank_of(chosen))

    @property
    def _best(self) -> float:
        """The fastest rate so far; 0 before the first measurement."""
        return max((one.rate for one in self._candidates if one.rates), default=0.0)

    def _worth_opening(self, candidate: _Candidate) -> bool:
        """Return whether a candidate can be the fastest, and there is time to measure it."""
        best = self._best
        if not best:
            return True
        first = next(one for one in self._candidates if one.order == (candidate.order[0], 0))
        if first is not candidate and (not first.rates or first.rate < HOPELESS * best):
            return False
        if time.perf_counter() > self._deadline:
            self.left_out.append(f"{candidate.label}: the time was up")
            self.out_of_time = True
            return False
        return True

    def _open(self, candidate: _Candidate) -> bool:
        """Compile a candidate; return whether it can be measured."""
        from ipucnn.inference.prepared_run import prepare, session_of

        # without images, except for calibration
        images = None if self.precision == "int8" else GivenImages([])
        try:
            options = as_chosen(self._options, candidate.backend, candidate.options,
                                self.precision, self._registry)
            job = prepare(options, self._registry, images=images)
            job = replace(job, executed=replace(job.executed, calls_in_flight=CALLS))
            session = candidate.session = session_of(job, [])
            session.compile()
            candidate.images = random_call(session, job.executed, job.built.input_size)
        except Exception as error:
            self._leave_out(candidate.label, error)
            candidate.close()
            return False
        return True

    def _measure_in_rounds(self, candidates: List[_Candidate], most: int) -> None:
        """Measure candidates in up to `most` rounds, while there are several and there is time."""
        end = time.perf_counter() + self._calling
        for number in range(most):
            running = [one for one in candidates if one.session is not None]
            if len(running) < 2:
                return
            self._measure(running[::-1] if number % 2 else running)
            if time.perf_counter() > end:
                return

    def _measure(self, running: List[_Candidate]) -> None:
        """Measure each of these candidates once, and close those that fail or are slow."""
        for candidate in running:
            assert candidate.session is not None
            time.sleep(PAUSE)
            try:
                candidate.rates.append(images_per_second(candidate.session, candidate.images))
            except Exception as error:
                self._leave_out(candidate.label, error)
                candidate.rates.clear()
                candidate.close()
        slow = SLOW * self._best
        for one in self._candidates:
            if one.rates and one.rate < slow:
                one.close()

    def _leave_out(self, name: str, error: Exception) -> None:
        lines = str(getattr(error, "message", error)).strip().splitlines()
        self.left_out.append(f"{name}: {lines[0] if lines else type(error).__name__}")


def _without_images(options: RunOptions) -> RunOptions:
    """Return the options without results, and without images unless calibration needs them."""
    options = options.with_values(predictions=None, top_k=5, report=None, result=None)
    if options.execution.precision == "int8":
        return options
    return options.with_values(data="real", data_dir=None, synthetic=None, skip_bad_samples=False)
