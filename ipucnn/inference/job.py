"""The job behind `ipucnn run`: classify images with a model on a backend, and measure it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import islice
from threading import Thread
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, TypeVar

from ipucnn.core.environment import describe
from ipucnn.core.errors import IpucnnError, UnsupportedNetworkError, UsageError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.execution.launching import fitted, launched, sharing
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import Chosen, check_offer, choose_backend, others_can, settled
from ipucnn.core.execution.shipped_profiles import fitted_to_machine, left_out_notes
from ipucnn.core.options.declaration import DEVICE_IMAGES, FULL_PRECISION, NO_LABELS
from ipucnn.core.options.effects import idle_notes
from ipucnn.core.options.parts import NetworkPart
from ipucnn.core.progress import Progress
from ipucnn.core.registry.records import DatasetSpec, ModelSpec, NormLayerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.given import fitted as given_at
from ipucnn.data.loader import MAX_REPORTED, Loader, none_readable, order
from ipucnn.data.opening import (
    as_opened,
    check_dataset_options,
    enlarged,
    open_dataset,
    request_of,
    with_classes,
)
from ipucnn.data.session_loader import feed
from ipucnn.data.waiting import hint
from ipucnn.inference import backend_choice, predictions
from ipucnn.inference.delivery import delivered, target_of
from ipucnn.inference.host_calls import HostCalls, batches
from ipucnn.inference.measured import Measured
from ipucnn.inference.options import RunOptions
from ipucnn.inference.run_result import Meter, RunResult
from ipucnn.inference.scores import Scores
from ipucnn.inference.shared_predictions import SharedWriter
from ipucnn.inference.tuning import measure
from ipucnn.models.built import BuiltModel
from ipucnn.models.card import ModelCard
from ipucnn.models.class_names import ClassMatch, match_classes
from ipucnn.models.memory_checks import check_images
from ipucnn.models.weights_card import preprocessing_of
from ipucnn.onnx.graph_cache import StoredGraph, graph_of_run
from ipucnn.onnx.network_of_run import read_stored
from ipucnn.reports.evidence import Evidence, kept_latencies, merged

ResultT = TypeVar("ResultT")

BENCHMARK_ITERATIONS = 100
"""Host calls over unlimited data; the old application's `--iterations` default."""

FEW_IMAGES, MANY_BYTES = 32, 80 << 20
"""Loading torch pays from so many bytes of encoded images where only resizing uses it: it takes as
long as resizing eight hundred images of 500x375 pixels with numpy takes longer. The pixels
are the same."""

LOCAL = "local"
"""The launcher plugin of the processes of `--instances`."""


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
    notes: List[str] = []
    if options.execution.measured:
        from ipucnn.inference.batch_of_run import with_measured_batch

        options, note = with_measured_batch(options, registry, images, prepare, session_of)
        notes.append(note)

    def execute(job: Job) -> RunResult:
        job.notes[:0] = notes
        return _execute(job, progress)

    return attempted(options, registry, images, execute,
                     backend_choice.asked(options, registry, progress))


def attempted(options: RunOptions, registry: Registry, images: Optional[ImageDataset],
              execute: Callable[[Job], ResultT],
              measured: Optional[Measured] = None) -> ResultT:
    """Prepare a run and execute it; where `auto` chose a backend that cannot, try the next one.

    Args:
        options: what to run.
        registry: where names are looked up.
        images: see `run`.
        execute: what to do with the prepared run.
        measured: see `prepare`.

    Raises:
        IpucnnError: anything the user can act on.
    """
    refusals: Dict[str, str] = {}
    while True:
        job = prepare(options, registry, refusals, images, measured)
        try:
            return execute(job)
        except UnsupportedNetworkError as error:
            refusals[job.chosen.spec.name] = error.message
            # a backend named by the user is never replaced
            if not job.chosen.why or not others_can(options, job.executed, registry, refusals):
                raise


@dataclass(frozen=True)
class Job:
    """A prepared run.

    Attributes:
        options: of the run, with the replicas that a launcher started.
        plan: of all instances together.
        executed: this process's part of the plan.
        chosen: the backend.
        data: the record of the dataset.
        dataset: the images to classify.
        built: the network.
        match: its class for each label of the dataset; None without labels.
        request: the arguments with which the dataset was opened.
        instances: the processes that share the run.
        notes: notes for the user.
        registry: where names are looked up.
        graph: where the network's exported graph is stored; None where it is not.
        images: number of images that all instances together classify.
        measured: the choice of the backend, if measurements made it.
        again: prepares the run again, with a measurement that may take so many seconds.
    """

    options: RunOptions
    plan: ExecutionPlan
    executed: ExecutionPlan
    chosen: Chosen
    data: DatasetSpec
    dataset: ImageDataset
    built: BuiltModel
    match: Optional[ClassMatch]
    request: DatasetRequest
    instances: Instances
    notes: List[str]
    registry: Registry
    graph: Optional[StoredGraph] = None
    images: int = 0
    measured: Optional[backend_choice.Choice] = None
    again: Optional[Callable[[float, Progress], Job]] = None


def prepare(options: RunOptions, registry: Registry,
            refusals: Optional[Mapping[str, str]] = None,
            images: Optional[ImageDataset] = None,
            measured: Optional[Measured] = None) -> Job:
    """Check a run and create its dataset and network, in the order of their cost.

    Args:
        options: what to run.
        registry: where names are looked up.
        refusals: backends that `auto` must not choose, and why.
        images: see `run`.
        measured: a measurement of backends; that of an earlier run when None.

    Raises:
        IpucnnError: anything the user can act on.
    """
    refusals = refusals or {}

    def again(limit: float, progress: Progress, asked: RunOptions = options) -> Job:
        return prepare(asked, registry, refusals, images,
                       measure(asked, registry, limit, progress))

    model = registry.get_typed(ModelSpec, options.network.model)
    data = registry.get_typed(DatasetSpec, options.dataset.name) if images is None \
        else _record_of(images)
    registry.get_typed(NormLayerSpec, options.network.normlayer)
    launch, wanted = launched(), options.execution.instances
    if wanted > 1 and launch is not None and launch.launcher != LOCAL:
        raise UsageError(f"'--instances {wanted}' would start processes in each one that "
                         f"{launch.launcher} started",
                         f"leave it out, or leave {launch.launcher} out")
    options, notes = fitted(fitted_to_machine(options, data.on_device, registry, refusals))
    notes += left_out_notes(options)
    if options.execution.pipeline_splits:
        from ipucnn.models.balance import with_balanced_splits

        options = with_balanced_splits(options, registry)
    plan = options.plan(data.on_device, sharing(options.execution.pipeline_splits))
    # the backend of a process that ipucnn starts does not know the other processes
    executed = plan.local() if wanted > 1 else plan
    choice = backend_choice.choice(options, executed, registry, refusals, measured)
    if choice is not None:
        options, chosen = choice.options, choice.chosen
        plan, executed = (replace(each, precision=options.execution.precision or "32.32")
                          for each in (plan, executed))
        notes += choice.notes
    else:
        chosen = choose_backend(options, executed, registry, refusals)
    if options.execution.precision is None:
        chosen, executed = settled(chosen, executed)
        plan = replace(plan, precision=executed.precision)
        options = options.with_values(precision=executed.precision)
    check_offer(options, executed, chosen.spec, registry)
    stored = read_stored(options.network.onnx, model, options.execution.batch_size)
    if stored is not None:
        model, plan, executed = stored.spec, stored.fitted(plan), stored.fitted(executed)
    check_dataset_options(options.dataset, data, {
        "--predictions": bool(options.results.predictions) and data.on_device,
        "--calibration-dir": bool(options.dataset.calibration_dir) and not data.reads_folder})
    if plan.precision == "int8" and data.on_device:
        raise UsageError(f"dataset {data.name!r} has no images to calibrate 8-bit integers with",
                         "choose images with '--data', or '--data generated' to measure speed only")
    instances = chosen.join(executed)
    if options.results.predictions:
        predictions.writer_class(options.results.predictions)
    length = None if data.finite else plan.combined_batch * (
        options.execution.iterations or BENCHMARK_ITERATIONS)
    preprocessing = stored.built.preprocessing if stored else preprocessing_of(
        options.network, registry)
    request = request_of(options.network, options.dataset, preprocessing.input_size, length)
    if data.labelled and data.finite:  # its classes are matched with those of the model
        request = replace(request, num_classes=None)
    dataset = open_dataset(data, request, options.plugins, registry) if images is None \
        else given_at(images, preprocessing.input_size)
    network = options.network if stored else network_of(options, data, dataset)
    graph = None if stored else graph_of_run(chosen, options, network, executed, registry)
    built = stored.built if stored else (graph and graph.read(registry)) or model_of(
        options, network, registry)
    if network.source == "random" and len(dataset.class_names) == built.card.classes:
        built = built.with_card(class_names=tuple(dataset.class_names))
    plan, executed = (replace(each, preprocessing=built.preprocessing) for each in (plan, executed))
    check_images(executed)
    total = _total(options, data, len(dataset), plan)
    executed = replace(executed, calls_in_flight=max(1, -(-total // executed.local_batch)))
    match = matched(options, data, dataset, built.card)
    if match is not None and match.note:
        notes.append(match.note)
    notes += idle_notes(options, _states(plan, as_opened(data, dataset)), registry)
    notes = [*(f"backend {name!r} is not used: {why}" for name, why in refusals.items()),
             *notes, *dataset.notes, *enlarged(dataset, built.input_size)]
    if plan.precision == "int8" and not data.finite:
        notes.append("8-bit integers calibrated with random images show speed only: their answers "
                     "mean nothing")
    return Job(options, plan, executed, chosen, data, dataset, built, match, request, instances,
               notes, registry, graph, total, choice, again)


def _record_of(images: ImageDataset) -> DatasetSpec:
    """Return the record of a dataset that is given as an object."""
    return DatasetSpec(name="images", summary="images given in Python", target=lambda _: images,
                       labelled=bool(images.class_names))


def _states(plan: ExecutionPlan, data: DatasetSpec) -> Dict[str, str]:
    """Return the states that a run is in, and the words for them; see `idle_notes`."""
    states: Dict[str, str] = {}
    if plan.precision == "32.32":
        states[FULL_PRECISION] = "in full precision"
    if data.on_device:
        states[DEVICE_IMAGES] = (f"on the images of dataset {data.name!r}, which are made on the "
                                 "device")
    if not data.labelled:
        states[NO_LABELS] = f"with dataset {data.name!r}, whose images have no labels"
    return states


def matched(options: RunOptions, data: DatasetSpec, dataset: ImageDataset,
            card: ModelCard) -> Optional[ClassMatch]:
    """Return the model's class for each label of a dataset; None where it has no labels.

    Raises:
        DataError: the model knows none of its classes.
    """
    if not as_opened(data, dataset).labelled:
        return None
    return match_classes(dataset.class_names, card.class_names, card.classes,
                         options.dataset.match_classes, f"dataset {data.name!r}")


def network_of(options: RunOptions, data: DatasetSpec, dataset: ImageDataset) -> NetworkPart:
    """Return which network to build: with one output per class of the dataset unless given."""
    network = options.network
    if network.source.startswith("pretrained"):
        return network
    return with_classes(network, data, dataset)  # a fresh head, or a file trained on such data


def model_of(options: RunOptions, network: NetworkPart, registry: Registry) -> BuiltModel:
    """Build the network.

    Raises:
        UsageError: an unknown name or an option that does not apply.
        WeightsError: the weights cannot be fetched or do not fit.
    """
    import torch

    from ipucnn.models.build import build_model

    torch.manual_seed(options.dataset.seed)
    return build_model(network, options.plugins, registry)


def _execute(job: Job, progress: Progress) -> RunResult:
    result = _empty_result(job)
    with session_of(job, result.notes) as session:
        progress("compile", 0, None)
        session.warm_up = not job.data.finite or job.images > session.samples_per_call
        with _loading_torch(session, job):
            seconds = session.compile()
        # also a barrier: all instances are ready, so that they are measured concurrently
        result.compile_seconds = max(job.instances.gather(seconds))
        result.session = session.facts
        if job.measured is not None:
            result.session["measured"] = dict(job.measured.rates)
        result.notes += session.notes
        limit = backend_choice.time_for(job, session)
        if not limit and not job.options.execution.compile_only:
            _classify(job, session, result, progress)
    if limit and job.again is not None:
        return _execute(job.again(limit, progress), progress)
    return result


@contextmanager
def _loading_torch(session: InferenceSession, job: Job) -> Iterator[None]:
    """Load torch while a session compiles that does not need it, to resize many images."""
    if not session.takes_arrays or as_opened(job.data, job.dataset).on_device \
            or not _much_to_resize(job):
        yield
        return
    thread = Thread(target=import_module, args=("torch",), daemon=True)
    thread.start()
    yield
    thread.join()


def _much_to_resize(job: Job) -> bool:
    """Return whether there is so much to resize that loading torch for it pays."""
    total = job.images
    if total < FEW_IMAGES or job.dataset.ready:
        return False
    try:
        first = job.dataset.encoded(0)
    except IpucnnError:  # reported or skipped when its turn comes
        return True
    return first is None or total * len(first) > MANY_BYTES


def session_of(job: Job, notes: List[str]) -> InferenceSession:
    """Return the backend's session, with calibration images for 8-bit integers.

    Notes about those images are added to `notes`.
    """
    options, built, data, source = job.options, job.built, job.data, job.dataset
    if job.plan.precision != "int8":
        if job.graph is not None:
            return job.graph.session(built, job.executed)
        return job.chosen.backend.inference(built.module, job.executed, built.input_size)
    from ipucnn.inference.calibration_images import SAMPLES, calibration_of  # imports torch

    if options.dataset.calibration_dir or not data.finite:
        length = None if data.finite else 2 * (options.dataset.calibration_samples or SAMPLES)
        source = open_dataset(data, replace(
            job.request, length=length,
            data_dir=options.dataset.calibration_dir or job.request.data_dir),
            options.plugins, job.registry)
        notes += [note for note in source.notes if note not in notes]
    calibration = calibration_of(source, built.preprocessing,
                                 matched(options, data, source, built.card), options.dataset)
    return job.chosen.backend.quantised(built.module, job.executed, built.input_size, calibration)


def _classify(job: Job, session: InferenceSession, result: RunResult, progress: Progress) -> None:
    options, dataset, built, instances = job.options, job.dataset, job.built, job.instances
    data = as_opened(job.data, dataset)
    everything = job.images
    part = job.plan.own(instances.index, everything)
    loader = None if data.on_device else _loader(job, session, part)
    scores: Optional[Scores] = None
    writer: Optional[predictions.PredictionWriter] = None
    ahead = job.plan.instances if instances.in_step else 1  # count the others' images, too
    calls = HostCalls(job.plan, session, batches(loader, len(part), session.samples_per_call),
                       options.execution.time_limit,
                       lambda done: progress("run", done * ahead, everything))
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
    """Add notes to a result, or raise what is wrong with it."""
    options, built, instances = job.options, job.built, job.instances
    if not data.finite:  # random images: their classes mean nothing
        result.answers, result.classes = [], []
    waiting = hint(result.data_wait_share, result.seconds, options.dataset.dataloader_worker)
    if waiting and not data.on_device:
        result.notes.append(waiting)
    result.notes += backend_choice.hint(job, result.seconds)
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
    """Return what collects the predictions for a report; None where none is wanted."""
    if not job.options.results.documented or not job.data.finite:  # random images show nothing
        return None
    return Evidence(job.built.card.names)


def _loader(job: Job, session: InferenceSession, part: range) -> Loader:
    """Return the loader of this process's part of the images."""
    own = islice(order(len(job.dataset), job.images), part.start, part.stop, part.step)
    return feed(session, job.dataset, job.executed, session.samples_per_call, own,
                workers=job.options.dataset.dataloader_worker,
                skip_bad=job.options.dataset.skip_bad_samples, part=job.instances.count > 1)


@contextmanager
def _prediction_writer(path: str, job: Job,
                       data: DatasetSpec) -> Iterator[predictions.PredictionWriter]:
    """Yield the writer of this instance's rows.

    Instances that are not in step write one file each, which their parent merges and sends.
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


def _total(options: RunOptions, data: DatasetSpec, length: int, plan: ExecutionPlan) -> int:
    """Return the number of images: by default one pass over real data; see `--iterations`."""
    if options.execution.iterations is None and data.finite:
        return length
    return plan.combined_batch * (options.execution.iterations or BENCHMARK_ITERATIONS)


def _empty_result(job: Job) -> RunResult:
    chosen, weights = job.chosen, job.built.weights
    notes = [f"backend {chosen.spec.name!r}: {chosen.why}"] if chosen.why else []
    return RunResult(
        model=job.built.spec.name, dataset=job.data.name, backend=chosen.spec.name,
        device=chosen.probe.device, options=job.options.as_dict(),
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
