"""Finds the fastest backend and its options for a network on this machine, by measurement."""

from __future__ import annotations

import logging
import math
import statistics
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Counter, Iterator, List, Mapping, Optional, Sequence

from ipucnn.core.contention import busy
from ipucnn.core.errors import IpucnnError, UsageError, WeightsError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.offers import lacks
from ipucnn.core.execution.selection import Chosen, choose_backend, probed, rank_of, settled
from ipucnn.core.execution.shipped_profiles import fitted_to_machine
from ipucnn.core.files import CACHE_VARIABLE
from ipucnn.core.names import key
from ipucnn.core.options.owners import AUTO
from ipucnn.core.registry.records import BackendSpec, ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data.given_images import GivenImages
from ipucnn.inference.measured import Measured, Rate, Record, given_options, source_of
from ipucnn.inference.options import RunOptions
from ipucnn.inference.prepared_run import prepare, session_of
from ipucnn.inference.session_rate import images_per_second, random_call
from ipucnn.inference.variants import as_chosen, variants_of
from ipucnn.onnx.network_of_run import preprocessing_of_run, read_stored

if TYPE_CHECKING:
    from ipucnn.core.progress import Progress

log = logging.getLogger("ipucnn.tuning")

ROUNDS, PAUSE = 12, 0.05
"""Maximum number of interleaved rounds in which candidates are measured again, and seconds before
each measurement: idle threads of the one before may still wait actively."""

LIMIT, CALLING = 30.0, 15.0
"""Seconds after which no further candidate is compiled, and maximum seconds of rounds after which
no further one begins."""

CLOSE, LAST = 0.85, 3
"""Share of the fastest rate below which a candidate is not measured again. Before each further
round, the slower half of the others is left out, too, until this number remains: the time is needed
for those that are close."""

HOPELESS = 0.4
"""Share of the fastest rate below which no other options of a backend are measured."""

CALLS = 64
"""Maximum number of host calls in flight for a candidate, as in a long run."""

_OTHERS = "other programs used all processors during the measurement: '--tune' measures again"


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
        WeightsError: the weights cannot be loaded.
    """
    begin, others = time.perf_counter(), busy()
    progress = progress or (lambda *_: None)
    options = fitted_to_machine(options, False, registry)
    contest = _Contest(_without_images(options), registry, limit, progress)
    with closing(contest):
        rates = contest.rates()
    if not rates:
        raise IpucnnError("no backend could be measured", "; ".join(contest.left_out))
    others = others or busy()
    measured = Measured(contest.precision, tuple(rates), tuple(contest.left_out),
                        round(time.perf_counter() - begin, 1),
                        (_OTHERS,) if others else ())
    log.debug("measured in %.1f s: %s", measured.seconds, rates)
    if len(rates) > 1 or options.execution.tune or contest.complete:
        records = [Record.of(options.with_values(precision=precision), registry,
                             options.execution.backend) for precision in contest.spellings()]
        kept = [record.write(measured) for record in records]
        if not all(kept):
            place = str(records[0].path.parent)
            measured = replace(measured, notes=(
                *measured.notes, f"the measurement is not stored for later runs: {place!r} cannot "
                f"be written; the variable {CACHE_VARIABLE} names another cache folder"))
    return measured


@dataclass
class _Candidate:
    """A backend with values of its options.

    Attributes:
        backend: its name.
        options: values of its options.
        rates: images per second of its measurements.
        of_rounds: those of the rounds.
    """

    backend: str
    options: Mapping[str, Any]
    session: Optional[InferenceSession] = None
    images: Any = None
    rates: List[float] = field(default_factory=list)
    of_rounds: List[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Images per second: the median over rounds, or the best measurement before them."""
        return statistics.median(self.of_rounds) if self.of_rounds else self.most

    @property
    def most(self) -> float:
        """Images per second of its best measurement; other work on the machine slows others.

        0 before the first one.
        """
        return max(self.rates, default=0.0)

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
    """

    def __init__(self, options: RunOptions, registry: Registry, limit: float,
                 progress: Progress) -> None:
        self._options, self._registry = options, registry
        self._deadline, self._progress = time.perf_counter() + limit, progress
        self.left_out: List[str] = []
        self._late: Counter[str] = Counter()
        self._opened = 0
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
        self._batch = stored.batch if stored is not None else None
        self._candidates: List[_Candidate] = []

    @property
    def complete(self) -> bool:
        """Whether no candidate was left out because the time was up."""
        return not self._late

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
        backends = self._found()
        self._candidates = [one for variants in backends for one in variants]
        self._open_all([first for first, *_ in backends])
        # where the time does not suffice for all, those of slow backends are left out
        for first, *others in sorted(backends, key=lambda variants: -variants[0].most):
            if first.most < HOPELESS * self._most:
                self._measure(first)  # other work may have slowed down its only measurement
            if first.rates and first.most >= HOPELESS * self._most:
                self._open_all(others)
        self.left_out += [f"{count} of the candidates with {name}: the time was up"
                          for name, count in self._late.items()]
        self._measure_in_rounds()
        # the others were slower at the same time, which a slower machine since then must not hide
        remaining = [one for one in self._candidates if one.session is not None]
        limit = min((one.rate for one in remaining), default=math.inf)
        return [Rate(one.backend, one.options,
                     round(one.rate if one in remaining else min(one.rate, limit), 2),
                     source_of(one.backend, self._registry))
                for one in self._candidates if one.rates]

    def _open_all(self, candidates: Sequence[_Candidate]) -> None:
        """Compile these candidates and measure them, while there is time."""
        for candidate in candidates:
            self._progress("tune", self._opened, len(self._candidates))
            self._opened += 1
            if self._most and time.perf_counter() > self._deadline:
                self._late[candidate.backend] += 1
            elif self._open(candidate):
                self._compare(candidate)

    def _found(self) -> List[List[_Candidate]]:
        """Return the variants of each backend, in the order of preference."""
        given = given_options(self._options)
        found: List[List[_Candidate]] = []
        for chosen in self._backends():
            name = chosen.spec.name
            try:
                variants = variants_of(chosen, self._plan, given)
            except Exception as error:
                self._leave_out(name, error)
                continue
            if not variants and chosen.spec is self._first.spec:
                raise UsageError(f"backend {name!r} cannot be measured by '--tune'",
                                 "leave it out, or name another backend with '--backend'")
            if variants and self._batch is not None:  # calls of a file have this number of images
                variants = [values for values in variants
                            if values.get("images_per_call", self._batch) == self._batch] or [{}]
            if variants:
                found.append([_Candidate(name, values) for values in variants])
        return found

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
    def _most(self) -> float:
        """The fastest rate so far; 0 before the first measurement."""
        return max((one.most for one in self._candidates), default=0.0)

    def _open(self, candidate: _Candidate) -> bool:
        """Compile a candidate; return whether it can be measured."""
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
        except WeightsError:  # no backend could get them
            raise
        except Exception as error:
            self._leave_out(candidate.label, error)
            candidate.close()
            return False
        return True

    def _compare(self, candidate: _Candidate) -> None:
        """Measure a candidate; close it, or the fastest so far, if it is much slower.

        Both are measured again before, one directly after the other: other work on the machine may
        have slowed down the first measurement of one of them.
        """
        fastest = max((one for one in self._candidates if one.session is not None and one.rates),
                      key=lambda one: one.most, default=None)
        if not self._measure(candidate) or fastest is None:
            return
        faster, slower = sorted((candidate, fastest), key=lambda one: -one.most)
        if slower.most < CLOSE * faster.most and self._measure(faster) and self._measure(slower) \
                and slower.rates[-1] < CLOSE * faster.rates[-1]:
            slower.close()

    def _measure_in_rounds(self) -> None:
        """Measure the open candidates in turn, while there are several and there is time."""
        end = time.perf_counter() + self._calling
        for number in range(ROUNDS):
            running = sorted((one for one in self._candidates if one.session is not None),
                             key=lambda one: -one.most)
            for candidate in running[max(LAST, -(-len(running) // 2)):] if number else []:
                candidate.close()
                running.remove(candidate)
            if len(running) < 2:
                return
            measured = [one for one in running[::-1 if number % 2 else 1] if self._measure(one)]
            for one in measured:
                one.of_rounds.append(one.rates[-1])
            slow = CLOSE * max((one.rate for one in measured), default=0.0)
            for one in measured:
                if one.most < slow:
                    one.close()
            if time.perf_counter() > end:
                return

    def _measure(self, candidate: _Candidate) -> bool:
        """Add a measurement of a candidate; close it if it fails, and return whether it did not."""
        if candidate.session is None:
            return False
        time.sleep(PAUSE)
        try:
            candidate.rates.append(images_per_second(candidate.session, candidate.images))
            candidate.session.pause()  # others may set the threads of the process otherwise
        except Exception as error:
            self._leave_out(candidate.label, error)
            candidate.rates.clear()
            candidate.close()
            return False
        return True

    def _leave_out(self, name: str, error: Exception) -> None:
        lines = str(getattr(error, "message", error)).strip().splitlines()
        self.left_out.append(f"{name}: {lines[0] if lines else type(error).__name__}")


def _without_images(options: RunOptions) -> RunOptions:
    """Return the options without results, and without images unless calibration needs them."""
    options = options.with_values(predictions=None, top_k=5, report=None, result=None)
    if options.execution.precision == "int8":
        return options
    return options.with_values(data="real", data_dir=None, synthetic=None, skip_bad_samples=False)
