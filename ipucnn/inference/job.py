"""The job behind `ipucnn run`: classify images with a model on a backend, and measure it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Callable, Dict, List, Mapping, Optional

from ipucnn.core.environment import describe
from ipucnn.core.errors import IpucnnError, UnsupportedNetworkError, UsageError
from ipucnn.core.execution.instances import ALONE, Instances, fitted, launched, launched_count
from ipucnn.core.execution.plan import ExecutionPlan, InferenceSession
from ipucnn.core.execution.selection import Chosen, check_offer, choose_backend, others_can
from ipucnn.core.options import RunOptions
from ipucnn.core.registry.records import DatasetSpec, ModelSpec, NormLayerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.data import ImageDataset
from ipucnn.data.loader import MAX_REPORTED, Loader, none_readable, order
from ipucnn.data.waiting import hint
from ipucnn.inference import predictions
from ipucnn.inference.calibration import SAMPLES, calibration_of
from ipucnn.inference.host_calls import HostCalls, batches
from ipucnn.inference.preparation import as_made, check_data_options, make_dataset, make_model
from ipucnn.inference.run_result import Meter, RunResult
from ipucnn.inference.scores import Scores, class_names
from ipucnn.models.build import BuiltModel
from ipucnn.onnx.network_of_run import read_stored

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
    registry = registry or current_registry()
    refusals: Dict[str, str] = {}
    while True:
        job = prepare(options, registry, part, refusals)
        try:
            return _execute(job, progress or (lambda *_: None))
        except UnsupportedNetworkError as error:
            refusals[job.chosen.spec.name] = error.message
            # which backend was named is never left for another
            if not job.chosen.why or not others_can(options, job.executed, registry, refusals):
                raise


@dataclass(frozen=True)
class Job:
    """A run, prepared.

    Attributes:
        options: of the run, with the replicas that `poprun` gives.
        plan: of all instances together.
        executed: what this process executes of it.
        chosen: the backend.
        model, data: records of the network and of the dataset.
        dataset: what is classified.
        built: the network.
        instances: the processes that share the run.
        notes: what the user should know.
        registry: where names are looked up.
    """

    options: RunOptions
    plan: ExecutionPlan
    executed: ExecutionPlan
    chosen: Chosen
    model: ModelSpec
    data: DatasetSpec
    dataset: ImageDataset
    built: BuiltModel
    instances: Instances
    notes: List[str]
    registry: Registry


def prepare(options: RunOptions, registry: Registry, part: Optional[Instances] = None,
            refusals: Optional[Mapping[str, str]] = None) -> Job:
    """Check a run and make its dataset and network, in the order of their cost.

    Args:
        options: what to run.
        registry: where names are looked up.
        part: the instances that this process works with, when `--instances` started it.
        refusals: backends that `auto` does not take, and why.

    Raises:
        IpucnnError: anything the user can act on.
    """
    refusals = refusals or {}
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
    notes = [f"backend {name!r} was left: {why}" for name, why in refusals.items()]
    notes += [*told, *dataset.notes]
    if plan.precision == "int8" and not data.finite:
        notes.append("8-bit integers calibrated with random images show speed only: their answers "
                     "mean nothing")
    return Job(options, plan, executed, chosen, model, data, dataset, built, instances, notes,
               registry)


def _execute(job: Job, progress: Progress) -> RunResult:
    result = _empty_result(job)
    with _session(job) as session:
        progress("compile", 0, None)
        # also the moment from which all are ready, so that they are measured side by side
        result.compile_seconds = max(job.instances.gather(session.compile()))
        result.session = session.facts
        if not job.options.compile_only:
            _classify(job, session, result, progress)
    return result


def _session(job: Job) -> InferenceSession:
    """Return the backend's session, for 8-bit integers with images to calibrate with."""
    options, built, data, source = job.options, job.built, job.data, job.dataset
    if job.plan.precision != "int8":
        return job.chosen.backend.inference(built.module, job.executed, built.input_size)
    if options.calibration_dir or not data.finite:
        source = make_dataset(options, job.model, data, job.registry,
                              data_dir=options.calibration_dir,
                              length=None if data.finite else 2 * (
                                  options.calibration_samples or SAMPLES))
    calibration = calibration_of(
        source, built.input_size, list(built.class_names) or class_names(built.num_classes, source),
        options.calibration_samples, options.seed, options.dataloader_worker,
        options.skip_bad_samples)
    return job.chosen.backend.quantised(built.module, job.executed, built.input_size, calibration)


def _classify(job: Job, session: InferenceSession, result: RunResult, progress: Progress) -> None:
    options, dataset, built, instances = job.options, job.dataset, job.built, job.instances
    data = as_made(job.data, dataset)
    everything = _total(job)
    total = len(range(instances.index, everything, instances.count))
    loader: Optional[Loader] = None
    if not data.on_device:
        own = islice(order(len(dataset), everything), instances.index, None, instances.count)
        loader = session.loader(dataset, built.input_size, session.samples_per_call, own,
                                workers=options.dataloader_worker,
                                skip_bad=options.skip_bad_samples, part=instances.count > 1,
                                pixels=job.plan.pixels)
    scores: Optional[Scores] = None
    ahead = instances.count if instances.in_step else 1  # what the others have done meanwhile
    calls = HostCalls(job.plan, session, batches(loader, total, session.samples_per_call),
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
    waiting = hint(result.data_wait_share, result.seconds, options.dataloader_worker)
    if waiting and not data.on_device:
        result.notes.append(waiting)
    if instances.count > 1 and result.skipped["count"] and not (
            result.images or result.stopped_by):
        raise none_readable(result.skipped["first"])


def _total(job: Job) -> int:
    """Return the images of the run: once through real data unless `--iterations` says more."""
    if job.options.iterations is None and job.data.finite:
        return len(job.dataset)
    return job.plan.combined_batch * (job.options.iterations or BENCHMARK_ITERATIONS)


def _empty_result(job: Job) -> RunResult:
    chosen, weights = job.chosen, job.built.weights
    notes = [f"backend {chosen.spec.name!r}: {chosen.why}"] if chosen.why else []
    return RunResult(
        model=job.built.spec.name, dataset=job.data.name, backend=chosen.spec.name,
        device=chosen.probe.device, options=job.options.as_dict(),
        environment={**describe(), "backend": chosen.probe.versions},
        plan={**job.plan.algebra(), "half": chosen.probe.half if job.plan.half else ""},
        weights={**asdict(weights), "summary": weights.summary()},
        notes=[*notes, *chosen.probe.notes, *job.notes])


def _fill_in(result: RunResult, calls: HostCalls, warmup: int, scores: Optional[Scores],
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
