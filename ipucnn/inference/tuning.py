"""Finds the fastest backend and its options for a network on this machine, by measurement."""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Deque,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Tuple,
)

from ipucnn.core.errors import IpucnnError, PluginError, UsageError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.plan import ExecutionPlan
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
from ipucnn.core.options.assignment import options_for
from ipucnn.core.options.declaration import INFERENCE, declared
from ipucnn.core.options.owners import AUTO, owner_of
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.records import BackendSpec, ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data.given import GivenImages
from ipucnn.inference.measured import Measured, Rate, Record, given_options, source_of
from ipucnn.inference.options import RunOptions
from ipucnn.onnx.examples import random_images
from ipucnn.onnx.network_of_run import preprocessing_of_run, read_stored

if TYPE_CHECKING:
    from ipucnn.core.progress import Progress

log = logging.getLogger("ipucnn.tuning")

ROUNDS = 3
SECONDS = 0.3
"""Number and seconds of the interleaved rounds in which each candidate is measured."""

LIMIT, CALLING = 30.0, 10.0
"""Seconds after which no further candidate is compiled, and maximum seconds of calls after which no
further round begins."""

SLOW, HOPELESS = 0.6, 0.3
"""Shares of the fastest rate below which a candidate is measured only once, and below which no
other options of its backend are measured."""

CLOSE, FINALS = 0.95, 6
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
    candidates = contest.candidates()
    try:
        rates = contest.rates(candidates)
    finally:
        for candidate in candidates:
            candidate.close()
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

    def close(self) -> None:
        """Free the device."""
        if self.session is not None:
            self.session.close()
            self.session = self.images = None


class _Contest:
    """Candidates that are measured in turn."""

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

    def spellings(self) -> List[Optional[str]]:
        """Return the values of `--precision` for which the measurement is valid; None is unset."""
        return [self.precision, *([None] if self.precision == self._usual else [])]

    def candidates(self) -> List[_Candidate]:
        """Return the candidates: the first variant of every backend, then the others.

        Raises:
            UsageError: the default backend of the run cannot be measured.
        """
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

    def rates(self, candidates: List[_Candidate]) -> List[Rate]:
        """Measure candidates, and return their rates in the order of preference."""
        for number, candidate in enumerate(candidates):
            self._progress("tune", number, len(candidates))
            if self._worth_opening(candidate, candidates) and self._open(candidate):
                self._round([candidate])
                self._drop_slow(candidates)
        end = time.perf_counter() + self._calling
        for rounds in range(ROUNDS):
            running = [candidate for candidate in candidates if candidate.session is not None]
            now = time.perf_counter()
            if len(running) < 2 or (rounds and now > end):
                break
            self._round(running)
            self._drop_slow(candidates)
        self._finals(candidates)
        return [Rate(one.backend, one.options, round(one.rate, 2),
                     source_of(one.backend, self._registry))
                for one in sorted(candidates, key=lambda one: one.order) if one.rates]

    def _finals(self, candidates: List[_Candidate]) -> None:
        """Measure the fastest candidates in further rounds."""
        best = max((one.rate for one in candidates if one.rates), default=0.0)
        close = [one for one in candidates
                 if one.session is not None and one.rates and one.rate >= CLOSE * best]
        end = time.perf_counter() + self._calling
        for _ in range(FINALS):
            running = [one for one in close if one.session is not None]
            if len(running) < 2 or time.perf_counter() > end:
                return
            self._round(running)

    def _worth_opening(self, candidate: _Candidate, candidates: List[_Candidate]) -> bool:
        """Return whether a candidate can be the fastest, and there is time to measure it."""
        best = max((one.rate for one in candidates if one.rates), default=0.0)
        if not best:
            return True
        first = next(one for one in candidates if one.order == (candidate.order[0], 0))
        if first is not candidate and (not first.rates or first.rate < HOPELESS * best):
            return False
        if time.perf_counter() > self._deadline:
            self.left_out.append(f"{_named(candidate)}: the time was up")
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
            self._leave_out(_named(candidate), error)
            candidate.close()
            return False
        return True

    def _round(self, running: List[_Candidate]) -> None:
        for candidate in running:
            assert candidate.session is not None
            try:
                candidate.rates.append(images_per_second(candidate.session, candidate.images))
            except Exception as error:
                self._leave_out(_named(candidate), error)
                candidate.rates.clear()
                candidate.close()

    def _drop_slow(self, candidates: List[_Candidate]) -> None:
        best = max((one.rate for one in candidates if one.rates), default=0.0)
        for one in candidates:
            if one.rates and one.rate < SLOW * best:
                one.close()

    def _leave_out(self, name: str, error: Exception) -> None:
        lines = str(getattr(error, "message", error)).strip().splitlines()
        self.left_out.append(f"{name}: {lines[0] if lines else type(error).__name__}")


def images_per_second(session: InferenceSession, images: Any) -> float:
    """Return the rate of a session with as many calls in flight as it can have.

    Args:
        session: compiled.
        images: images of a call; None if the device generates them.
    """
    count = max(1, session.in_flight)
    for wait in [session.start(images) for _ in range(count)]:
        wait()  # not timed, because others have used the caches since the last round
    begin, calls, seconds = time.perf_counter(), 0, 0.0
    flying: Deque[Callable[[], Any]] = deque(session.start(images) for _ in range(count - 1))
    while seconds < SECONDS:
        for _ in range(count):  # calls in flight end in bursts
            flying.append(session.start(images))
            flying.popleft()()
        calls += count
        seconds = time.perf_counter() - begin
    for wait in flying:
        wait()
    return calls * session.samples_per_call / seconds


def random_call(session: InferenceSession, plan: ExecutionPlan, input_size: int) -> Any:
    """Return random images for a call, in the format of a loader."""
    shape = (session.samples_per_call, 3, input_size, input_size)
    images = random_images(shape, "float32" if plan.pixels == "normalised" else "uint8",
                           plan.seed or 0)
    if plan.pixels == "float":
        images = images.astype("float32")
    if session.takes_arrays:
        return images
    import torch

    return torch.from_numpy(images)


def variants_of(chosen: Chosen, plan: ExecutionPlan,
                given: Mapping[str, Any]) -> List[Dict[str, Any]]:
    """Return the values of a backend's options to measure, without those that are given."""
    found: List[Dict[str, Any]] = []
    for variant in chosen.backend.variants(plan):
        values = {name: value for name, value in variant.items() if name not in given}
        if values not in found:
            found.append(values)
    return found


def _named(candidate: _Candidate) -> str:
    return Rate(candidate.backend, candidate.options, 0.0).words.partition(" ")[2]


def _without_images(options: RunOptions) -> RunOptions:
    """Return the options without results, and without images unless calibration needs them."""
    options = options.with_values(predictions=None, top_k=5, report=None, result=None)
    if options.execution.precision == "int8":
        return options
    return options.with_values(data="real", data_dir=None, synthetic=None, skip_bad_samples=False)


def as_chosen(options: RunOptions, backend: str, values: Mapping[str, Any], precision: str,
              registry: Registry) -> RunOptions:
    """Return the given options with a backend and values of its options.

    Raises:
        IpucnnError: there is no such backend, or a value is not valid.
    """
    spec = registry.get_typed(BackendSpec, backend)
    owner = owner_of(KINDS["backend"], spec, registry)
    for name in values:
        if owner is None or owner.option(name, INFERENCE) is None:
            raise PluginError(f"backend {spec.name!r} has no option {name!r} to measure")
    plugins = options.plugins
    own = plugins.of("backend", spec.name)
    given = dict(plugins.deferred) if own is None else {
        item.name: getattr(own, item.name) for item in declared(type(own))}
    made = options_for(spec, "backend", {**given, **values}, registry)
    owned = {(kind, name): value for (kind, name), value in plugins.owned.items()
             if kind != "backend"}
    if made is not None:
        owned["backend", spec.name] = made
    return replace(
        options.with_values(backend=spec.name, precision=precision, tune=False),
        plugins=replace(plugins, owned=owned, deferred={}, undecided={}, shipped=frozenset()))
