"""The job behind `ipucnn run`: classify images with a model on a backend, and measure it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice, repeat
from typing import Any, Callable, Dict, Generator, List, Optional

from ipucnn.core import bulk, predictions
from ipucnn.core.calibration import SAMPLES, calibration_of
from ipucnn.core.choice import Chosen, check_offer, choose_backend, others_can
from ipucnn.core.data import ImageDataset
from ipucnn.core.data.loader import MAX_REPORTED, Batch, Loader, none_readable, order
from ipucnn.core.environment import describe
from ipucnn.core.errors import IpucnnError, UnsupportedNetworkError, UsageError
from ipucnn.core.execution import ExecutionPlan, InferenceSession
from ipucnn.core.instances import ALONE, Instances, fitted, launched, launched_count
from ipucnn.core.models import BuiltModel
from ipucnn.core.normalisation import fed
from ipucnn.core.onnx.stored import read_stored
from ipucnn.core.options import RunOptions
from ipucnn.core.preparation import check_data_options, make_dataset, make_model
from ipucnn.core.registry import Registry
from ipucnn.core.registry import registry as current_registry
from ipucnn.core.results import Meter, RunResult
from ipucnn.core.scores import Scores, class_names
from ipucnn.core.specs import DatasetSpec, ModelSpec, NormLayerSpec

BENCHMARK_ITERATIONS = 100
"""Host calls over data that has no end; the old application's `--iterations` default."""

Progress = Callable[[str, int, Optional[int]], None]
"""Called with a phase (`compile`, `run`), the images done and the images in all."""


def run(options: RunOptions, registry: Optional[Registry] = None,
        progress: Optional[Progress] = None, part: Optional[Instances] = None) -> RunResult:
    """Run inference.

    Of several instances each classifies its part, and all get the result of all.

    Things are prepared in the order of their cost, so that a mistake is found before minutes are
    spent. An interrupt while images are classified ends the run early: the result then holds what
    was done and says so in `stopped_by`.

    Args:
        options: what to run.
        registry: where names are looked up; this process's when not given.
        progress: told how far the run is.
        part: the instances that this process works with, when `--instances` started it.

    Raises:
        IpucnnError: anything the user can act on.
    """
    refusals: Dict[str, str] = {}
    while True:
        try:
            return _run(options, registry or current_registry(), progress or (lambda *_: None),
                        part, refusals)
        except _AnotherBackend as refusal:
            refusals[refusal.backend] = refusal.message


class _AnotherBackend(Exception):
    """A backend that `--backend auto` took cannot execute the network."""

    def __init__(self, backend: str, message: str) -> None:
        super().__init__(message)
        self.backend, self.message = backend, message


def _run(options: RunOptions, registry: Registry, progress: Progress, part: Optional[Instances],
         refusals: Dict[str, str]) -> RunResult:
    """Run once; see `run`. Backends in `refusals` are not taken, and why is told."""
    model = registry.get_typed(ModelSpec, options.model)
    data = registry.get_typed(DatasetSpec, options.chosen_data)
    registry.get_typed(NormLayerSpec, options.normlayer)
    if options.instances > 1 and launched() is not None:
        raise UsageError(f"'--instances {options.instances}' would start processes of each that "
                         "poprun started", "leave it out, or leave poprun out")
    options, told = fitted(options)
    plan = options.plan(data.on_device, launched_count())
    # processes that ipucnn starts need nothing of a backend: to each, its part is everything
    executed = plan.local() if options.instances > 1 else plan
    chosen = choose_backend(options.backend, registry, executed, options, refusals)
    check_offer(options, executed, chosen.spec, registry)
    stored = read_stored(options, model)
    if stored is not None:
        model, plan, executed = stored.spec, stored.fitted(plan), stored.fitted(executed)
    check_data_options(options, data, {
        "--predictions": bool(options.predictions) and data.on_device,
        "--annotations": bool(options.annotations) and not data.annotations,
        "--calibration-dir": bool(options.calibration_dir) and not data.reads_folder})
    if plan.precision == "int8" and data.on_device:
        raise UsageError(f"dataset {data.name!r} has no images to calibrate 8-bit integers with",
                         "take images with '--data', or '--data generated' to measure speed only")
    instances = part or chosen.join()
    if options.predictions and launched_count() > 1:
        raise UsageError("'--predictions' is written by one process, and poprun started "
                         f"{instances.count}", "leave it out, or start one process")
    if options.predictions:
        predictions.writer_class(options.predictions)
    length = None if data.finite else plan.combined_batch * (
        options.iterations or BENCHMARK_ITERATIONS)
    dataset = make_dataset(options, model, data, registry, length=length,
                           annotations=options.annotations)
    built = stored.built if stored else make_model(options, data, dataset, registry)
    if options.instances > 1 and part is None:
        del dataset, built  # made to find mistakes, and to fetch weights once
        return bulk.run(options, registry.settings, progress)
    result = _empty_result(options, plan, chosen, built, data)
    result.notes += [f"backend {name!r} was left: {why}" for name, why in refusals.items()]
    result.notes += [*told, *dataset.notes]
    if plan.precision == "int8" and not data.finite:
        result.notes.append("8-bit integers calibrated with random images show speed only: their "
                            "answers mean nothing")
    with ExitStack() as stack:
        try:
            session = stack.enter_context(
                _session(options, executed, chosen, model, data, dataset, built, registry))
            progress("compile", 0, None)
            seconds = session.compile()
        except UnsupportedNetworkError as error:
            tried = [*refusals, chosen.spec.name]
            if chosen.why and others_can(options, executed, registry, tried):
                raise _AnotherBackend(chosen.spec.name, error.message) from error
            raise
        # also the moment from which all are ready, so that they are measured side by side
        result.compile_seconds = max(instances.gather(seconds))
        result.session = session.facts
        if not options.compile_only:
            _classify(options, plan, session, dataset, data, built, result, progress, instances)
    return result


def _session(options: RunOptions, plan: ExecutionPlan, chosen: Chosen, model: ModelSpec,
             data: DatasetSpec, dataset: ImageDataset, built: BuiltModel,
             registry: Registry) -> InferenceSession:
    """Return the backend's session, for 8-bit integers with images to calibrate with."""
    if plan.precision != "int8":
        return chosen.backend.inference(built.module, plan, built.input_size)
    source = dataset
    if options.calibration_dir or not data.finite:
        source = make_dataset(options, model, data, registry, data_dir=options.calibration_dir,
                              length=None if data.finite else 2 * (
                                  options.calibration_samples or SAMPLES))
    calibration = calibration_of(
        source, built.input_size, list(built.class_names) or class_names(built.num_classes, source),
        options.calibration_samples, options.seed, options.dataloader_worker,
        options.skip_bad_samples)
    return chosen.backend.quantised(built.module, plan, built.input_size, calibration)


def _classify(options: RunOptions, plan: ExecutionPlan, session: InferenceSession,
              dataset: ImageDataset, data: DatasetSpec, built: BuiltModel, result: RunResult,
              progress: Progress, instances: Instances) -> None:
    everything = _total(options, plan, data, dataset)
    total = len(range(instances.index, everything, instances.count))
    loader: Optional[Loader] = None
    if not data.on_device:
        own = islice(order(len(dataset), everything), instances.index, None, instances.count)
        loader = session.loader(dataset, built.input_size, session.samples_per_call, own,
                                workers=options.dataloader_worker,
                                skip_bad=options.skip_bad_samples, part=instances.count > 1)
    scores: Optional[Scores] = None
    ahead = instances.count if instances.in_step else 1  # what the others have done meanwhile
    calls = _HostCalls(plan, session, _batches(loader, total, session.samples_per_call),
                       options.time_limit,
                       lambda done: progress("run", done * ahead, everything))
    shared = not instances.in_step
    try:
        with ExitStack() as stack:
            writer = None
            if options.predictions:
                columns = predictions.columns(min(options.top_k, built.num_classes), data.labelled,
                                              dataset.has_image_ids)
                writer = stack.enter_context(
                    instances.prediction_writer(options.predictions, columns))
                result.predictions = options.predictions
            stack.callback(calls.close)
            scores = Scores(dataset, data, built.num_classes, options.top_k, writer,
                            built.class_names, instances)
            progress("run", 0, everything)
            while calls.execute(scores.add):
                pass
        if calls.out_of_time:
            result.stopped_by = "time limit"
        shared = True
    except KeyboardInterrupt as interrupt:
        # a signal handler may raise it with its own name
        result.stopped_by = str(interrupt) or "SIGINT"
        shared = True
    except Exception as error:
        result.stopped_by = "error"
        if isinstance(error, IpucnnError):
            error.partial = result
        instances.failing(error)
        raise
    finally:
        # instances in step would wait for one that has failed for ever
        _fill_in(result, calls, options.warmup, scores, loader, instances if shared else ALONE)
    if instances.count > 1 and result.skipped["count"] and not (
            result.images or result.stopped_by):
        raise none_readable(result.skipped["first"])


@dataclass
class _HostCalls:
    """Executes host call after host call, in device calls as large as the session takes."""

    plan: ExecutionPlan
    session: InferenceSession
    batches: Generator[Optional[Batch], None, None]
    time_limit: Optional[float]
    tell: Callable[[int], None]

    def __post_init__(self) -> None:
        self.meter = Meter()
        self.images = 0
        self.out_of_time = False
        self._started = time.perf_counter()

    def execute(self, deliver: Callable[[Batch, Any], None]) -> bool:
        """Execute one combined batch; return whether there may be more."""
        samples, waited = 0, 0.0
        latencies: List[float] = []
        begin = time.perf_counter()
        more = True
        try:
            while more and samples < self.plan.local_batch:
                asked = time.perf_counter()
                if self.time_limit is not None and asked - self._started >= self.time_limit:
                    self.out_of_time = True
                    return False
                try:
                    batch = next(self.batches)
                except StopIteration:
                    more = False
                    break
                called = time.perf_counter()
                logits = self.session(None if batch is None else fed(batch.images, self.plan))
                latencies.append(time.perf_counter() - called)
                waited += called - asked
                samples += self.session.samples_per_call if batch is None else len(batch.indices)
                if batch is not None:
                    deliver(batch, logits)
                self.tell(self.images + samples)
        finally:  # also what an interrupt leaves unfinished was done and is counted
            self.images += samples
            if samples:
                counters = self.session.device_latency()
                self.meter.iteration(samples, time.perf_counter() - begin, waited,
                                     [counters[2]] if counters else latencies)
        return more

    def close(self) -> None:
        """Stop decoding ahead."""
        self.batches.close()


def _batches(loader: Optional[Loader], total: int,
             size: int) -> Generator[Optional[Batch], None, None]:
    if loader is not None:
        yield from loader
    else:  # the device makes its own images
        yield from repeat(None, -(-total // size))


def _total(options: RunOptions, plan: ExecutionPlan, data: DatasetSpec,
           dataset: ImageDataset) -> int:
    """Return the images of the run: once through real data unless `--iterations` says more."""
    if options.iterations is None and data.finite:
        return len(dataset)
    return plan.combined_batch * (options.iterations or BENCHMARK_ITERATIONS)


def _empty_result(options: RunOptions, plan: ExecutionPlan, chosen: Chosen, built: BuiltModel,
                  data: DatasetSpec) -> RunResult:
    notes = [f"backend {chosen.spec.name!r}: {chosen.why}"] if chosen.why else []
    notes += chosen.probe.notes
    return RunResult(
        model=built.spec.name, dataset=data.name, backend=chosen.spec.name,
        device=chosen.probe.device, options=options.as_dict(),
        environment={**describe(), "backend": chosen.probe.versions},
        plan={**plan.algebra(), "half": chosen.probe.half if plan.half else ""},
        weights={**asdict(built.weights), "summary": built.weights.summary()}, notes=notes)


def _fill_in(result: RunResult, calls: _HostCalls, warmup: int, scores: Optional[Scores],
             loader: Optional[Loader], instances: Instances) -> None:
    told = instances.gather({
        "index": instances.index, "calls": calls.meter.as_plain(), "images": calls.images,
        "scored": scores.as_plain() if scores else [0, 0, 0],
        "skipped": loader.skipped_count if loader else 0,
        "first_skipped": loader.skipped if loader else [], "stopped_by": result.stopped_by})
    meter = Meter.together([part["calls"] for part in told], instances.in_step)
    result.iterations = len(meter.seconds)
    result.images = sum(part["images"] for part in told)
    result.seconds = sum(meter.seconds) if instances.in_step else max(
        sum(seconds for _, seconds, _, _ in part["calls"]) for part in told)
    result.warmup_iterations = meter.warmup(warmup)
    figures = meter.figures(result.warmup_iterations, calls.plan.combined_batch)
    for name, value in figures.items():
        setattr(result, name, value)
    if scores is not None:
        scores.together([part["scored"] for part in told])
        result.accuracy = scores.accuracy()
        result.accuracy_note = scores.note
    result.skipped = {
        "count": sum(part["skipped"] for part in told),
        "first": [image for part in told for image in part["first_skipped"]][:MAX_REPORTED]}
    result.stopped_by = next((part["stopped_by"] for part in told if part["stopped_by"]), None)
    if instances.count > 1:
        result.instances = [_own_figures(part, warmup, calls.plan.local_batch) for part in told]


def _own_figures(told: Dict[str, Any], warmup: int, full: int) -> Dict[str, Any]:
    """Return what one of several instances measured by itself, as plain types."""
    meter = Meter.together([told["calls"]])
    figures = meter.figures(meter.warmup(warmup), full)
    return {"index": told["index"], "images": told["images"], **{
        name: figures[name] and asdict(figures[name]) for name in ("throughput", "latency_ms")}}
