"""Preparation of a run: its backend, images and network, in the order of their cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ipucnn.core.collection import collect_as_usual
from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.instances import Instances
from ipucnn.core.execution.launching import LOCAL, fitted, launched, sharing
from ipucnn.core.execution.offers import check_offer
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import Chosen, choose_backend, settled
from ipucnn.core.execution.session_checks import opened
from ipucnn.core.execution.shipped_profiles import fitted_to_machine, left_out_notes
from ipucnn.core.options.attributes import DEVICE_IMAGES, FULL_PRECISION, NO_LABELS
from ipucnn.core.options.effects import idle_notes
from ipucnn.core.options.parts import NetworkPart, names_published
from ipucnn.core.registry.records import DatasetSpec, ModelSpec, NormLayerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.given_images import fitted as given_at
from ipucnn.data.opening import (
    as_opened,
    check_dataset_options,
    enlarged,
    open_dataset,
    request_of,
    with_classes,
)
from ipucnn.inference import backend_choice, predictions
from ipucnn.inference.delivery import check_target
from ipucnn.inference.measured import Measured
from ipucnn.inference.options import RunDataset, RunOptions
from ipucnn.inference.unscored import unscored_notes
from ipucnn.models.built import BuiltModel
from ipucnn.models.card import ModelCard
from ipucnn.models.class_names import ClassMatch, match_classes
from ipucnn.models.memory_checks import check_images
from ipucnn.models.weights_card import assumptions
from ipucnn.onnx.graph_cache import StoredGraph, graph_of_run
from ipucnn.onnx.network_of_run import preprocessing_of_run, read_stored

BENCHMARK_ITERATIONS = 100
"""Host calls over unlimited data; the old application's `--iterations` default."""

_NO_SPLIT = "name another folder with '--data-dir', or another dataset with '--data'"


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
        match: the model's class for each label of the dataset; None without labels.
        request: the arguments with which the dataset was opened.
        instances: the processes that share the run.
        notes: notes for the user.
        registry: where names are looked up.
        given: the options before anything was decided.
        again: prepares the run again, with a measurement.
        graph: the stored graph of the network; None if it is not stored.
        images: number of images that all instances together classify.
        measured: the choice of the backend, if measurements made it.
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
    given: RunOptions
    again: Callable[[Measured], Job]
    graph: Optional[StoredGraph] = None
    images: int = 0
    measured: Optional[backend_choice.Choice] = None


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
    refusals, given = refusals or {}, options

    def again(measured: Measured) -> Job:
        return prepare(given, registry, refusals, images, measured)

    draft = _on_backend(given, images, registry, refusals, measured)
    options, data, chosen = draft.options, draft.data, draft.chosen
    model = registry.get_typed(ModelSpec, options.network.model)
    stored = read_stored(options.network.onnx, model, options.execution.batch_size)
    if stored is not None:
        draft.plan, draft.executed = stored.fitted(draft.plan), stored.fitted(draft.executed)
    _check_dataset(draft)
    instances = chosen.join(draft.executed)
    if options.results.predictions:
        predictions.writer_class(options.results.predictions)
        check_target(options.results.predictions)
    preprocessing = preprocessing_of_run(stored, options.network, registry)
    request = _request(draft, preprocessing.input_size)
    dataset = open_dataset(data, request, options.plugins, registry, no_split_hint=_NO_SPLIT) \
        if images is None else given_at(images, preprocessing.input_size)
    built, graph = (stored.built, None) if stored else _network(draft, dataset)
    draft.change_plans(preprocessing=built.preprocessing)
    check_images(draft.executed)
    total = _total(options, data, len(dataset), draft.plan)
    match = matched(options, data, dataset, built.card)
    notes = [*(f"backend {name!r} is not used: {why}" for name, why in refusals.items()),
             *draft.notes, *([match.note] if match and match.note else []),
             *(stored.notes if stored else assumptions(options.network, built.card, registry)),
             *unscored_notes(options, dataset, built, registry),
             *idle_notes(options, _states(draft.plan, as_opened(data, dataset)), registry),
             *dataset.notes, *enlarged(dataset, built.input_size)]
    if draft.plan.precision == "int8" and not data.finite:
        notes.append("8-bit integers are calibrated with random images: the speed is "
                     "representative, but their predictions are meaningless")
    return Job(options, draft.plan, draft.executed.for_images(total), chosen, data, dataset,
               built, match, request, instances, notes, registry, given, again, graph, total,
               draft.measured)


@dataclass
class _Draft:
    """A run that is being prepared; see `Job`."""

    options: RunOptions
    plan: ExecutionPlan
    executed: ExecutionPlan
    chosen: Chosen
    data: DatasetSpec
    registry: Registry
    notes: List[str]
    measured: Optional[backend_choice.Choice]

    def change_plans(self, **values: Any) -> None:
        """Change fields of both plans."""
        self.plan, self.executed = replace(self.plan, **values), replace(self.executed, **values)


def _on_backend(options: RunOptions, images: Optional[ImageDataset], registry: Registry,
                refusals: Mapping[str, str], measured: Optional[Measured]) -> _Draft:
    """Return the draft of a run on a backend that supports it; see `prepare`."""
    registry.get_typed(ModelSpec, options.network.model)  # rejects unknown names, as below
    data = registry.get_typed(DatasetSpec, options.dataset.name) if images is None \
        else _record_of(images)
    registry.get_typed(NormLayerSpec, options.network.normlayer)
    instances = options.execution.instances
    _check_launch(instances)
    options, notes = fitted(fitted_to_machine(options, data.on_device, registry, refusals))
    notes += left_out_notes(options)
    if options.execution.pipeline_splits:
        from ipucnn.models.balance import with_balanced_splits

        size = preprocessing_of_run(None, options.network, registry).input_size
        options = with_balanced_splits(options, registry, input_size=size)
    plan = options.plan(data.on_device, sharing(options.execution.pipeline_splits))
    # in a process that ipucnn starts, the backend does not exchange data with the others
    executed = plan.local() if instances > 1 else plan
    choice = backend_choice.choice(options, executed, registry, refusals, measured)
    chosen = choice.chosen if choice else choose_backend(options, executed, registry, refusals)
    draft = _Draft(options, plan, executed, chosen, data, registry, notes, choice)
    if choice is not None:
        draft.options = choice.options
        draft.change_plans(precision=choice.options.execution.precision or "32.32")
        draft.notes += choice.notes
    if draft.options.execution.precision is None:
        draft.chosen, draft.executed = settled(chosen, draft.executed)
        precision = draft.executed.precision
        draft.plan = replace(draft.plan, precision=precision)
        draft.options = draft.options.with_values(precision=precision)
    check_offer(draft.options, draft.executed, draft.chosen.spec, registry)
    return draft


def _check_launch(instances: int) -> None:
    """Raise an error if each process of a launcher would start further processes."""
    launch = launched()
    if instances > 1 and launch is not None and launch.launcher != LOCAL:
        raise UsageError(f"'--instances {instances}' would start processes in each one that "
                         f"{launch.launcher} started",
                         f"leave it out, or leave {launch.launcher} out")


def _check_dataset(draft: _Draft) -> None:
    """Check the options of the dataset, and that it can calibrate 8-bit integers."""
    options, data = draft.options, draft.data
    check_dataset_options(options.dataset, data, {
        "--predictions": bool(options.results.predictions) and data.on_device,
        "--calibration-dir": bool(options.dataset.calibration_dir) and not data.reads_folder})
    if draft.plan.precision == "int8" and data.on_device:
        raise UsageError(f"dataset {data.name!r} has no images to calibrate 8-bit integers with",
                         "choose images with '--data', or '--data generated' to measure speed only")


def _request(draft: _Draft, input_size: int) -> DatasetRequest:
    """Return the arguments for the dataset."""
    options, data = draft.options, draft.data
    length = None if data.finite else draft.plan.combined_batch * (
        options.execution.iterations or BENCHMARK_ITERATIONS)
    request = request_of(options.network, options.dataset, input_size, length)
    if data.labelled and data.finite:  # its classes are matched with those of the model
        return replace(request, num_classes=None)
    return request


def _network(draft: _Draft, dataset: ImageDataset) -> Tuple[BuiltModel, Optional[StoredGraph]]:
    """Return the network of the registry, and where its graph is stored, if it is."""
    options, registry = draft.options, draft.registry
    network = network_of(options, draft.data, dataset)
    graph = graph_of_run(draft.chosen, options, network, draft.executed, registry)
    built = (graph and graph.read(registry)) or model_of(options, network, registry)
    if network.source == "random" and len(dataset.class_names) == built.card.classes:
        built = built.with_card(class_names=tuple(dataset.class_names))
    return built, graph


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
        DataError: the model has none of its classes.
    """
    if not as_opened(data, dataset).labelled:
        return None
    return match_classes(dataset.class_names, card.class_names, card.classes,
                         options.dataset.match_classes, f"dataset {data.name!r}",
                         new=options.network.source == "random")


def network_of(options: RunOptions, data: DatasetSpec, dataset: ImageDataset) -> NetworkPart:
    """Return the options of the network: one output per class of the dataset by default."""
    network = options.network
    if names_published(network.source):
        return network
    return with_classes(network, data, dataset)  # a fresh head, or a file trained on such data


def model_of(options: RunOptions, network: NetworkPart, registry: Registry) -> BuiltModel:
    """Build the network.

    Raises:
        UsageError: an unknown name or an option that does not apply.
        WeightsError: the weights cannot be fetched or do not fit.
    """
    from ipucnn.models.build import build_model, seeded

    with seeded(options.dataset.seed):
        return build_model(network, options.plugins, registry)


def session_of(job: Job, notes: List[str]) -> InferenceSession:
    """Return the backend's session, with calibration images for 8-bit integers.

    Notes about those images are added to `notes`.

    Raises:
        PluginError: the backend has returned something else.
    """
    collect_as_usual()
    built, backend = job.built, job.chosen.backend
    if job.plan.precision == "int8":
        session = _quantised(job, notes)
    elif job.graph is not None:
        session = job.graph.session(built, job.executed)
    else:
        session = backend.inference(built.module, job.executed, built.input_size)
    return opened(session, InferenceSession, job.chosen.plugin)


def _quantised(job: Job, notes: List[str]) -> InferenceSession:
    """Return a session in 8-bit integers."""
    options, built, data, source = job.options, job.built, job.data, job.dataset
    from ipucnn.inference.calibration_images import SAMPLES, calibration_of  # imports torch

    if options.dataset.calibration_dir or not data.finite:
        length = None if data.finite else 2 * (options.dataset.calibration_samples or SAMPLES)
        request = replace(job.request, length=length,
                          data_dir=options.dataset.calibration_dir or job.request.data_dir)
        try:
            source = open_dataset(data, request, options.plugins, job.registry)
        except DataError as error:
            without = job.registry.get_typed(DatasetSpec, RunDataset.data)
            if not options.dataset.calibration_dir or data is without:
                raise
            try:  # calibration needs no labels
                source = open_dataset(without, request, options.plugins, job.registry)
            except DataError:
                raise error from None
            data = without
            notes.append("the images of '--calibration-dir' are used without labels: "
                         + error.message)
        notes += [note for note in source.notes if note not in notes]
    calibration = calibration_of(source, built.card, matched(options, data, source, built.card),
                                 options.dataset)
    return job.chosen.backend.quantised(built.module, job.executed, built.input_size, calibration)


def _total(options: RunOptions, data: DatasetSpec, length: int, plan: ExecutionPlan) -> int:
    """Return the number of images: by default one pass over real data; see `--iterations`."""
    if options.execution.iterations is None and data.finite:
        return length
    return plan.combined_batch * (options.execution.iterations or BENCHMARK_ITERATIONS)
