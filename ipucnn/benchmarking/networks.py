"""The job behind `ipucnn bench`: measures networks, and other programs beside them."""

from __future__ import annotations

import os
import random
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ipucnn.benchmarking import limits
from ipucnn.benchmarking.bench_selection import cases_of, contenders_of
from ipucnn.benchmarking.case import (
    INFERENCE,
    LIMIT,
    OWN,
    PEER,
    TUNE,
    Case,
    Contender,
    Facts,
    RefusedError,
)
from ipucnn.benchmarking.contender_process import FAILURES, reason_of
from ipucnn.benchmarking.contenders import Process
from ipucnn.benchmarking.network_options import NetworkBenchOptions
from ipucnn.benchmarking.network_result import CaseResult, Entry, Limit, NetworkBench, Rates
from ipucnn.benchmarking.own import run_options
from ipucnn.core.environment import describe
from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.execution.launching import check_alone
from ipucnn.core.options.building import build
from ipucnn.core.options.owners import AUTO
from ipucnn.core.progress import Progress
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.inference.measured import Record

QUICK_SECONDS = 270.0
"""Seconds for all of `--quick`, so that it ends in five minutes."""

LEAST_SECONDS = 3.0
"""Seconds for the backends of a case, in any event."""

PRODUCT_SECONDS = 0.3
"""Seconds of the matrix product that the figures of `--quick` are compared with."""

PAUSE = 0.1
"""Seconds before a turn: idle threads of the contender before may still wait actively, which makes
the next one slower (OpenBLAS after a matrix product)."""

ONNX_PEERS = tuple(Contender(PEER, name) for name in (
    "onnxruntime", "openvino-latency", "openvino-throughput"))


def bench(options: NetworkBenchOptions, registry: Optional[Registry] = None,
          progress: Optional[Progress] = None) -> NetworkBench:
    """Measure networks on this machine.

    Every contender runs in a separate process for each network. In each round, they are measured
    one after the other in a different order. An interrupt ends the measurement; the result contains
    the measurements so far, and `stopped_by` names the reason.

    Args:
        options: what to measure.
        registry: where names are looked up; this process's when not given.
        progress: receives the turns done, and their number.

    Raises:
        IpucnnError: anything the user can act on.
    """
    registry = registry or current_registry()
    check_alone("bench")
    options.results.check_places()
    cases = list(cases_of(options, registry))
    quick = options.extent.quick
    contenders = [] if quick else contenders_of(options, registry)
    result = NetworkBench(options.as_dict(), _environment(),
                          datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))
    begin = time.perf_counter()
    measured = _Measurement(options, registry, result, progress or (lambda *_: None))
    measured.total = len(cases) * (1 if quick else len(contenders) * options.extent.rounds)
    try:
        if quick:
            measured.quick(cases)
        for model in [] if quick else dict.fromkeys(case.model for case in cases):
            measured.network([case for case in cases if case.model == model], contenders)
    except KeyboardInterrupt as interrupt:
        result.stopped_by = str(interrupt) or "SIGINT"
    result.seconds = time.perf_counter() - begin
    if not result.stopped_by and not any(case.entries for case in result.cases):
        raise _nothing(result)
    return result


def _environment() -> Dict[str, Any]:
    """Return the environment, with the command as a user types it."""
    found = describe()
    program, *words = found["command"] or [""]
    if os.path.basename(program) in ("__main__.py", "ipucnn"):
        found["command"] = ["ipucnn", *words]
    return found


def _nothing(result: NetworkBench) -> IpucnnError:
    """Return the error of a measurement that has no result."""
    reasons = {f"{name}: {reason}" for case in result.cases
               for name, reason in case.left_out.items()}
    return UsageError("no contender can be measured", "; ".join(sorted(reasons)))


class _Measurement:
    """Measures cases, and adds them to a result."""

    def __init__(self, options: NetworkBenchOptions, registry: Registry, result: NetworkBench,
                 progress: Progress) -> None:
        self._options, self._registry, self._result = options, registry, result
        self._progress = progress
        self._costs: Dict[str, int] = {}
        self._done = 0
        self._without_file = ""  # why the network is not in a file
        self.total = 0

    def quick(self, cases: Sequence[Case]) -> None:
        """Measure what `--backend auto` considers in every case, and store it for later runs."""
        deadline = time.perf_counter() + QUICK_SECONDS
        with closing(Process(Contender(LIMIT, limits.PRODUCT),
                             self._registry.settings)) as product:
            for number, case in enumerate(cases):
                self._report()
                left = (deadline - time.perf_counter()) / (len(cases) - number)
                found = self._new(case)
                try:
                    self._tune(replace(case, limit=max(LEAST_SECONDS, left / 2)), product, found)
                except RefusedError as reason:
                    found.left_out[AUTO] = str(reason)
                self._done += 1
        self._report()
        self._result.notes.append("from now on, '--backend auto' uses the fastest backend and "
                                  "options for these networks and micro-batches")

    def _tune(self, case: Case, product: Process, found: CaseResult) -> None:
        """Measure the backends of a case, and a matrix product as their limit.

        Raises:
            RefusedError: none can be measured.
        """
        facts = tuned(case, self._registry)
        found.precision = str(facts["precision"])
        _fill_in(found, *_product(product, replace(case, precision=found.precision)))
        found.entries += [Entry(OWN, name, Rates.of([rate]), [rate], of_limit=found.of_limit(rate))
                          for name, rate in facts["rates"]]
        for reason in facts["left_out"]:
            name, _, text = reason.partition(": ")
            found.left_out[name] = text

    def _new(self, case: Case) -> CaseResult:
        """Add a case to the result, and return it."""
        found = CaseResult(case.model, case.batch_size, case.precision, case.job, case.data,
                           case.preprocessing.input_size, self._multiply_adds(case.model))
        self._result.cases.append(found)
        return found

    def _multiply_adds(self, model: str) -> int:
        """Return the multiply-adds of a network; 0, of which no limit follows, where it fails."""
        if model not in self._costs:
            from ipucnn.models.build import create_model, seeded
            from ipucnn.models.tracing import count

            self._costs[model] = 0
            with suppress(*FAILURES), seeded(0):  # the contenders report what fails
                built = create_model(model, weights="random")
                self._costs[model] = count(built.module, built.input_size)[1]
        return self._costs[model]

    def network(self, cases: Sequence[Case], contenders: Sequence[Contender]) -> None:
        """Measure the cases of one network, in processes that stay for all of them."""
        first = cases[0]
        if Contender(OWN, AUTO) in contenders:
            self._measure_for_auto(cases)
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            processes = []
            for contender in contenders:
                processes.append(Process(contender, self._registry.settings))
                stack.callback(processes[-1].close)
            onnx = self._without_file = ""
            if first.job == INFERENCE and any(one in ONNX_PEERS for one in contenders):
                try:
                    onnx = _exported(first.model, folder)
                except FAILURES as error:
                    self._without_file = f"the network cannot be exported: {reason_of(error)}"
            for case in cases:
                self._case(replace(case, onnx=onnx), processes, self._new(case))

    def _measure_for_auto(self, cases: Sequence[Case]) -> None:
        """Measure the backends of cases for which no measurement is stored."""
        for case in cases:
            options = run_options(AUTO, case)
            if Record.of(options, self._registry, AUTO).read(self._registry) is None:
                self._report()
                # without a measurement the contender uses the fixed rank: see its facts
                with suppress(RefusedError):
                    tuned(case, self._registry)

    def _case(self, case: Case, processes: Sequence[Process], found: CaseResult) -> None:
        """Measure a case; what was measured before an interrupt is kept."""
        ready: List[Process] = []
        turns: Dict[Process, List[float]] = {}
        facts: Dict[Process, Facts] = {}
        try:
            for process in processes:
                self._report()
                try:
                    if self._without_file and process.contender in ONNX_PEERS:
                        raise RefusedError(self._without_file)
                    process.prepare(case)
                    ready.append(process)
                except RefusedError as reason:
                    self._left_out(found, process, reason, self._options.extent.rounds)
            for number in range(self._options.extent.rounds):
                for process in _ordered(ready, number):
                    time.sleep(PAUSE)
                    try:
                        turns.setdefault(process, []).append(
                            process.turn(self._options.extent.seconds))
                    except RefusedError as reason:
                        ready.remove(process)
                        turns.pop(process, None)
                        self._left_out(found, process, reason, 0)
                    self._done += 1
                    self._report()
            for process in ready:
                try:
                    facts[process] = process.end()
                except RefusedError as reason:
                    turns.pop(process, None)
                    self._left_out(found, process, reason, 0)
        finally:
            _fill_in(found, {process: turns[process] for process in processes if process in turns},
                     facts)

    def _left_out(self, found: CaseResult, process: Process, reason: RefusedError,
                  skipped: int) -> None:
        if process.contender.kind != LIMIT:
            found.left_out[process.contender.label] = str(reason)
        self._done += skipped

    def _report(self) -> None:
        self._progress("measure", min(self._done, self.total), self.total)


def _product(process: Process, case: Case) -> Tuple[Dict[Process, List[float]],
                                                    Dict[Process, Facts]]:
    """Return the rate of the matrix product, and the facts of its process."""
    process.prepare(case)
    rate = process.turn(PRODUCT_SECONDS)
    return {process: [rate]}, {process: process.end()}


def tuned(case: Case, registry: Registry) -> Facts:
    """Measure the backends of a case in a process of its own, for later runs with `auto`.

    Raises:
        RefusedError: none can be measured.
    """
    process = Process(Contender(OWN, AUTO), registry.settings)
    try:
        process.prepare(replace(case, job=TUNE))
        return process.end()
    finally:
        process.close()


def _ordered(processes: Sequence[Process], number: int) -> List[Process]:
    """Return the processes in the order of a round, which differs from round to round.

    Each one then follows each of the others about as often: what one leaves behind in the caches
    or in the processor's temperature affects all alike.
    """
    return random.Random(number).sample(list(processes), len(processes))


def _exported(model: str, folder: str) -> str:
    """Write a network as an ONNX file for any number of images, and return its path."""
    from ipucnn.onnx.job import export
    from ipucnn.onnx.options import ExportOptions

    path = str(Path(folder, f"{model}.onnx"))
    export(build(ExportOptions, {"model": model, "weights": "random", "target": "onnxruntime",
                                 "dynamic_batch": True, "output": path}))
    return path


def _fill_in(found: CaseResult, turns: Dict[Process, List[float]],
             facts: Dict[Process, Facts]) -> None:
    """Add the measurements to a case."""
    operations = limits.OPERATIONS[found.job] * found.multiply_adds
    for process, rates in turns.items():
        if process.contender.kind != LIMIT:
            continue
        own = facts.get(process, {})
        if process.contender.name == limits.PRODUCT:
            if not operations:  # unknown for this network
                continue
            found.limits.append(Limit(
                limits.PRODUCT, Rates.of([rate / operations for rate in rates]),
                str(own.get("arithmetic", "")), Rates.of(rates).median))
        else:
            found.limits.append(Limit(limits.DECODING, Rates.of(rates)))
    best = max((Rates.of(rates).median for process, rates in turns.items()
                if process.contender.kind == PEER), default=None)
    for process, rates in turns.items():
        contender = process.contender
        if contender.kind == LIMIT:
            continue
        median = Rates.of(rates).median
        own = dict(facts.get(process, {}))
        memory = own.pop("peak_memory", None)
        found.entries.append(Entry(
            contender.kind, contender.name, Rates.of(rates), rates,
            median / best if best else None, found.of_limit(median), memory, own))
