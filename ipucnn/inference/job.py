"""The job behind `ipucnn run`: classify images with a model on a backend, and measure it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, TypeVar

from ipucnn.core.environment import describe
from ipucnn.core.errors import IpucnnError, UnsupportedNetworkError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.execution.selection import others_can
from ipucnn.core.progress import Progress
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.data import ImageDataset
from ipucnn.data.dataset_checks import check_shared
from ipucnn.data.loader import MAX_REPORTED, Loader, none_readable
from ipucnn.data.opening import as_opened
from ipucnn.data.waiting import hint
from ipucnn.inference import automatic_tuning, predictions
from ipucnn.inference.delivery import delivered, target_of
from ipucnn.inference.host_calls import HostCalls, batches
from ipucnn.inference.image_loading import compiled_ahead, loader_of, own_part
from ipucnn.inference.measured import Measured
from ipucnn.inference.options import RunOptions
from ipucnn.inference.prepared_run import Job, prepare, session_of
from ipucnn.inference.run_result import Meter, RunResult
from ipucnn.inference.scores import Scores
from ipucnn.inference.shared_predictions import SharedWriter
from ipucnn.inference.tuning import measure
from ipucnn.reports.evidence import Evidence, kept_latencies, merged

ResultT = TypeVar("ResultT")


def run(options: RunOptions, registry: Optional[Registry] = None,
        progress: Optional[Progress] = None, images: Optional[ImageDataset] = None) -> RunResult:
    """Run inference.

    With several instances, each classifies its part, and all of them return the combined result.

    Preparation is ordered by cost, so that errors are found before minutes are spent. An interrupt
    while images are classified ends the run early: the partial result then states the reason in
    `stopped_by`.

    Args:
        options: what to run.
        registry: where names are looked up; this process's when not given.
        progress: receives the progress of the run.
        images: the images, instead of those that the options name.

    Raises:
        IpucnnError: anything the user can act on.
    """
    registry, progress = registry or current_registry(), progress or (lambda *_: None)
    options.results.check_places(options)
    notes: List[str] = []
    if options.execution.measured:
        from ipucnn.inference.batch_of_run import with_measured_batch

        options, note = with_measured_batch(options, registry, images, prepare, session_of)
        notes.append(note)

    def execute(job: Job) -> RunResult:
        return _execute(job, progress, notes)

    return attempted(options, registry, images, execute,
                     automatic_tuning.requested(options, registry, progress))


def attempted(options: RunOptions, registry: Registry, images: Optional[ImageDataset],
              execute: Callable[[Job], ResultT], measured: Optional[Measured] = None,
              prepared: Optional[Job] = None) -> ResultT:
    """Prepare a run and execute it; where `auto` chose a backend that cannot, try the next one.

    Args:
        options: what to run.
        registry: where names are looked up.
        images: see `run`.
        execute: what to do with the prepared run.
        measured: see `prepare`.
        prepared: the run, if it is prepared already.

    Raises:
        IpucnnError: anything the user can act on.
    """
    refusals: Dict[str, str] = {}
    while True:
        job = prepared or prepare(options, registry, refusals, images, measured)
        prepared = None
        try:
            return execute(job)
        except UnsupportedNetworkError as error:
            if job.graph is not None and job.graph.discard(job.built):
                continue  # a damaged file: it is exported again
            refusals[job.chosen.spec.name] = error.message
            # a backend named by the user is never replaced
            if not job.chosen.why or not others_can(options, job.executed, registry, refusals):
                raise


def _execute(job: Job, progress: Progress, notes: Sequence[str]) -> RunResult:
    job.notes[:0] = notes
    result = _empty_result(job)
    if job.instances.in_step:
        check_shared(job.instances, job.dataset)
    with ExitStack() as stack:
        session = stack.enter_context(session_of(job, result.notes))
        progress("compile", 0, None)
        # with files, another call before the first images would only take time: `--warmup` leaves
        # the first calls out of the figures
        session.warm_up = not job.data.finite
        seconds, loader = compiled_ahead(session, job, stack)
        # also a barrier: all instances are ready, so that they are measured concurrently
        result.compile_seconds = max(job.instances.gather(seconds))
        result.session = session.facts
        if job.measured is not None:
            result.session["measured"] = dict(job.measured.rates)
        result.notes += session.notes
        limit = automatic_tuning.time_for(job, session)
        if not limit and not job.options.execution.compile_only:
            _classify(job, session, result, progress, loader)
    if limit:
        measured = measure(job.given, job.registry, limit, progress)
        return _execute(job.again(measured), progress, notes)
    return result


def _classify(job: Job, session: InferenceSession, result: RunResult, progress: Progress,
              loader: Optional[Loader]) -> None:
    """Classify the images.

    Args:
        job: the run.
        session: compiled.
        result: receives the figures.
        progress: receives the progress.
        loader: of this process's images if they are already being prepared.
    """
    options, dataset, built, instances = job.options, job.dataset, job.built, job.instances
    data = as_opened(job.data, dataset)
    everything = job.images
    part = own_part(job)
    if loader is None and not data.on_device:
        loader = loader_of(job, session)
    scores: Optional[Scores] = None
    writer: Optional[predictions.PredictionWriter] = None
    ahead = job.plan.instances if instances.in_step else 1  # count the others' images, too
    calls = HostCalls(job.plan, session, batches(loader, len(part), session.samples_per_call),
                       options.execution.time_limit,
                       lambda done: progress("run", done * ahead, everything),
                       built.card.num_outputs, job.chosen.plugin)
    shared = not instances.in_step
    try:
        with ExitStack() as stack:
            if options.results.predictions:
                writer = stack.enter_context(
                    _prediction_writer(options.results.predictions, job, data))
                result.predictions = options.results.predictions
            stack.callback(calls.close)
            scores = Scores(dataset, built.card, job.match, options.results.top_k, writer, part)
            scores.evidence = _evidence(job)
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
        # instances in step would wait forever for one that has failed
        if shared:
            session.finish()
        unwritten = writer.share(shared) if isinstance(writer, SharedWriter) else None
        _fill_in(result, calls, options.execution.warmup, scores, loader,
                 instances if shared else ALONE)
    if unwritten is not None:
        raise unwritten
    _conclude(job, data, result, scores)


def _conclude(job: Job, data: DatasetSpec, result: RunResult, scores: Optional[Scores]) -> None:
    """Add notes to a result, or raise its error."""
    options, built, instances = job.options, job.built, job.instances
    if not data.finite:  # the classes of random images have no meaning
        result.answers, result.classes = [], []
    waiting = hint(result.data_wait_share, result.seconds, options.dataset.dataloader_worker)
    if waiting and not data.on_device:
        result.notes.append(waiting)
    result.notes += automatic_tuning.hint(job, result.seconds)
    if instances.count > 1 and result.skipped["count"] and not (
            result.images or result.stopped_by):
        raise none_readable(result.skipped["first"])
    failure = scores.failure if scores else None
    if failure is not None:
        if built.weights.source == "random" or not data.finite:  # a benchmark
            result.notes.append(failure.message)
        else:
            failure.partial = result
            raise failure


def _evidence(job: Job) -> Optional[Evidence]:
    """Return the collector of predictions for a report, or None."""
    if not job.options.results.documented or not job.data.finite:  # not for random images
        return None
    return Evidence(job.built.card.names)


@contextmanager
def _prediction_writer(path: str, job: Job,
                       data: DatasetSpec) -> Iterator[predictions.PredictionWriter]:
    """Yield the writer of this instance's rows.

    Instances that are not in step write one file each, which their parent merges and uploads.
    """
    dataset, instances = job.dataset, job.instances
    columns = predictions.columns(min(job.options.results.top_k, job.built.card.classes),
                                  data.labelled, dataset.has_image_ids, bool(dataset.split),
                                  dataset.multi_label)
    if instances.in_step and instances.count > 1:
        yield SharedWriter(path, columns, instances)  # finished by `share`
        return
    if instances.in_step:
        with delivered(path) as target, predictions.writer_class(path)(target, columns) as writer:
            yield writer
        return
    from ipucnn.inference.bulk.prediction_parts import PartWriter  # `bulk` imports this module

    with PartWriter(target_of(path), columns, instances.index) as writer:
        yield writer


def _empty_result(job: Job) -> RunResult:
    chosen, weights = job.chosen, job.built.weights
    notes = [f"backend {chosen.spec.name!r}: {chosen.why}"] if chosen.why else []
    return RunResult(
        model=job.built.spec.name, dataset=job.data.name, backend=chosen.spec.name,
        device=chosen.probe.device, options=job.options.recorded(),
        environment={**describe(), "backend": chosen.probe.versions},
        plan={**job.plan.algebra(), "half": chosen.probe.half if job.plan.half else ""},
        weights={**asdict(weights), "summary": weights.summary()},
        card=job.built.card.as_plain(),
        notes=[*notes, *chosen.probe.notes, *job.notes])


def _fill_in(result: RunResult, calls: HostCalls, warmup: int, scores: Optional[Scores],
             loader: Optional[Loader], instances: Instances) -> None:
    parts = instances.gather({
        "index": instances.index, "calls": calls.meter.as_plain(), "images": calls.images,
        "scored": scores.as_plain() if scores else None,
        "answers": scores.answers.as_plain() if scores else None,
        "skipped": loader.skipped_count if loader else 0,
        "first_skipped": loader.skipped if loader else [], "stopped_by": result.stopped_by,
        "evidence": scores.shown() if scores else None})
    meter = Meter.together([part["calls"] for part in parts], instances.in_step)
    result.iterations = len(meter.seconds)
    result.images = sum(part["images"] for part in parts)
    result.seconds = sum(meter.seconds) if instances.in_step else max(
        sum(seconds for _, seconds, _, _ in part["calls"]) for part in parts)
    result.warmup_iterations = meter.warmup(warmup)
    figures = meter.figures(result.warmup_iterations, calls.plan.combined_batch,
                            calls.session.in_flight)
    for name, value in figures.items():
        setattr(result, name, value)
    evidence = merged([part["evidence"] for part in parts if part["evidence"]])
    result.evidence = {
        **(scores.pictured(evidence) if scores and evidence else {}),
        "latencies_ms": kept_latencies(meter.latencies_after(result.warmup_iterations))}
    if scores is not None:
        scores.together([part["scored"] for part in parts if part["scored"]])
        result.accuracy = scores.accuracy()
        result.accuracy_note = scores.note
        result.answers, result.classes = scores.answers.together(
            [part["answers"] for part in parts])
    result.skipped = {
        "count": sum(part["skipped"] for part in parts),
        "first": [image for part in parts for image in part["first_skipped"]][:MAX_REPORTED]}
    result.stopped_by = next((part["stopped_by"] for part in parts if part["stopped_by"]), None)
    if instances.count > 1:
        result.instances = [_own_figures(part, warmup, calls)
                            for part in parts[:calls.plan.instances]]


def _own_figures(part: Dict[str, Any], warmup: int, calls: HostCalls) -> Dict[str, Any]:
    """Return the measurements of one of several instances, as plain types."""
    meter = Meter.together([part["calls"]])
    figures = meter.figures(meter.warmup(warmup), calls.plan.local_batch,
                            calls.session.in_flight)
    return {"index": part["index"], "images": part["images"], **{
        name: figures[name] and asdict(figures[name]) for name in ("throughput", "latency_ms")}}
