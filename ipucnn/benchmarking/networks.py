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
from typing import Any, Dict, List, Optional, Sequence

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
from ipucnn.benchmarking.network_result import CaseResult, Entry, NetworkBench, Rates
from ipucnn.benchmarking.own import run_options
from ipucnn.benchmarking.turns import Turns
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

    Every contender runs in a separate process for each case, or in several, one after the other. In
    each round, they are measured one after the other in a different order. An interrupt ends the
    measurement; the result contains the measurements so far, and `stopped_by` names the reason.

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
    result = NetworkBench(options.recorded(), _environment(),
                          datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"))
    begin = time.perf_counter()
    measured = _Measurement(options, registry, result, progress or (lambda *_: None))
    measured.total = len(cases) * (1 if quick else len(contenders) * options.extent.turns)
    try:
        if quick:
            measured.quick(cases)
        for model in [] if quick else dict.fromkeys(case.model for case in cases):
            measured.network([case for case in cases if case.model == model], contenders)
    except KeyboardInterrupt as interrupt:
        result.stopped_by = str(interrupt) or "SIGINT"
        result.cases = [case for case in result.cases if case.entries or case.left_out]
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
        if any(self._stored(case) for case in cases):
            self._result.notes.append("from now on, '--backend auto' uses the fastest backend and "
                                      "options for these networks and micro-batches")

    def _tune(self, case: Case, product: Process, found: CaseResult) -> None:
        """Measure the backends of a case, and a matrix product as their limit.

        Raises:
            RefusedError: none can be measured.
        """
        facts = self._tuned(case)
        found.precision = str(facts["precision"])
        turns = Turns(replace(case, precision=found.precision), found)
        product.prepare(turns.case)
        turns.add(product.contender, product.turn(PRODUCT_SECONDS))
        turns.facts[product.contender] = product.end()
        turns.fill_in([product.contender])
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
        """Measure the cases of one network, whose ONNX file is the same for all."""
        first = cases[0]
        if Contender(OWN, AUTO) in contenders:
            self._measure_for_auto(cases)
        with tempfile.TemporaryDirectory() as folder:
            onnx = self._without_file = ""
            if first.job == INFERENCE and any(one in ONNX_PEERS for one in contenders):
                try:
                    onnx = _exported(first.model, folder)
                except FAILURES as error:
                    self._without_file = f"the network cannot be exported: {reason_of(error)}"
            for case in cases:
                turns = Turns(replace(case, onnx=onnx), self._new(case))
                try:
                    for _ in range(self._options.extent.processes):
                        self._in_processes(turns, contenders)
                finally:  # what was measured before an interrupt is kept
                    turns.fill_in(contenders)

    def _in_processes(self, turns: Turns, contenders: Sequence[Contender]) -> None:
        """Measure a case in processes of its own, as a command has: no earlier case used memory."""
        with ExitStack() as stack:
            processes = []
            for contender in contenders:
                processes.append(Process(contender, self._registry.settings))
                stack.callback(processes[-1].close)
            self._case(turns, processes)

    def _measure_for_auto(self, cases: Sequence[Case]) -> None:
        """Measure the backends of cases for which no measurement is stored."""
        for case in cases:
            if not self._stored(case):
                self._report()
                # without a measurement the contender uses the fixed rank: see its facts
                with suppress(RefusedError):
                    self._tuned(case)

    def _tuned(self, case: Case) -> Facts:
        """Measure the backends of a case for later runs, and add the notes to the result.

        Raises:
            RefusedError: none can be measured.
        """
        facts = tuned(case, self._registry)
        self._result.notes += [note for note in facts["notes"] if note not in self._result.notes]
        return facts

    def _stored(self, case: Case) -> bool:
        """Return whether there is a measurement of a case that later runs use."""
        record = Record.of(run_options(AUTO, case), self._registry, AUTO)
        return record.read(self._registry) is not None

    def _case(self, turns: Turns, processes: Sequence[Process]) -> None:
        """Measure a case in the rounds of these processes."""
        extent = self._options.extent
        ready: List[Process] = []
        for process in processes:
            self._report()
            try:
                if process.contender in turns.left_out:
                    self._done += extent.rounds
                    continue
                if self._without_file and process.contender in ONNX_PEERS:
                    raise RefusedError(self._without_file)
                process.prepare(turns.case)
                ready.append(process)
            except RefusedError as reason:
                turns.leave_out(process.contender, reason)
                self._done += extent.rounds
        for number in range(extent.rounds):
            for process in _ordered(ready, number):
                time.sleep(PAUSE)
                try:
                    turns.add(process.contender, process.turn(extent.seconds))
                except RefusedError as reason:
                    ready.remove(process)
                    turns.leave_out(process.contender, reason)
                self._done += 1
                self._report()
        for process in ready:
            try:
                turns.facts[process.contender] = process.end()
            except RefusedError as reason:
                turns.leave_out(process.contender, reason)

    def _report(self) -> None:
        self._progress("measure", min(self._done, self.total), self.total)


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
