"""Creates and checks the parts of a training: plan, backend, datasets, model, loss, loggers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, List, Mapping, Optional, Tuple

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.execution.launching import fitted, sharing
from ipucnn.core.execution.offers import check_offer
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import Chosen, choose_backend, settled
from ipucnn.core.execution.session_checks import checked_weights, shapes_of
from ipucnn.core.execution.shipped_profiles import fitted_to_machine, left_out_notes
from ipucnn.core.execution.training_session import (
    StateDict,
    TrainingSession,
    TrainingSetup,
)
from ipucnn.core.loggers import Logger
from ipucnn.core.registry.records import DatasetSpec, ModelSpec, NormLayerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.dataset_checks import check_shared
from ipucnn.data.opening import (
    as_opened,
    check_dataset_options,
    enlarged,
    open_dataset,
    request_of,
    usual_record,
    with_classes,
)
from ipucnn.data.pixel_cache import PixelCache
from ipucnn.models.balance import with_balanced_splits
from ipucnn.models.built import BuiltModel
from ipucnn.models.card import ModelCard
from ipucnn.models.class_names import ClassMatch, match_classes, similar_names
from ipucnn.models.memory_checks import check_images
from ipucnn.training.checkpoints.checkpoint import Checkpoint
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.agreement import check_options, check_start
from ipucnn.training.setup.batch_of_training import with_measured_batch
from ipucnn.training.setup.class_balance import balanced, check_classes, check_outputs
from ipucnn.training.setup.defaults import decided, followed_size, foreseen_size, size_note
from ipucnn.training.setup.idle_options import notes_on_idle, notes_on_length
from ipucnn.training.setup.loss_of_training import check_loss, make_loss
from ipucnn.training.setup.network_of_training import network_for, preprocessing_for, sized, usual
from ipucnn.training.setup.outline import accumulation_notes, endless_epoch
from ipucnn.training.setup.parameters import freeze, layers_of
from ipucnn.training.setup.rates import (
    LearningRate,
    LossScaling,
    learning_rate,
    loss_scaling,
    optimizer_choice,
)
from ipucnn.training.setup.run_loggers import make_loggers
from ipucnn.training.setup.trained_data import compared, crop_as_before, moved


@dataclass
class Prepared:
    """The parts of a training.

    Attributes:
        options: the options as given, with the values that were chosen.
        plan: the execution plan.
        chosen: the backend.
        data: the dataset's record.
        dataset: its training images.
        validation: its validation images; None without validation.
        match, validation_match: the model's class for each label of both; None without labels.
        built: the model.
        setup: settings of the session.
        rate: learning rate by fractional epoch.
        scaling: loss scaling by epoch.
        instances: the processes of the training.
        loggers: the loggers; empty except in the first instance.
        calls: host calls per epoch.
        notes: notes for the user.
        registry: where names are looked up.
        class_counts: number of training images by output, if the loss depends on it.
        compile_seconds: seconds spent on compiling the session, once done.
        cache, validation_cache: caches of decoded images, if enabled and if they fit.
        shapes: those of the model's weights by name; a session may change the model.
    """

    options: TrainOptions
    plan: ExecutionPlan
    chosen: Chosen
    data: DatasetSpec
    dataset: ImageDataset
    validation: Optional[ImageDataset]
    match: Optional[ClassMatch]
    validation_match: Optional[ClassMatch]
    built: BuiltModel
    setup: TrainingSetup
    rate: LearningRate
    scaling: LossScaling
    instances: Instances
    loggers: List[Logger]
    calls: int
    notes: List[str]
    registry: Registry
    class_counts: List[int]
    compile_seconds: float = 0.0
    cache: Optional[PixelCache] = None
    validation_cache: Optional[PixelCache] = None
    shapes: Mapping[str, Tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        self.shapes = shapes_of(self.built.module.state_dict())

    def weights_of(self, session: TrainingSession, ema: bool = False) -> StateDict:
        """Return the weights of a session; those of a third-party backend are checked.

        Raises:
            PluginError: they are not those of the model.
        """
        return checked_weights(session.weights(ema=ema), self.shapes, self.chosen.plugin)


def prepare(options: TrainOptions, registry: Registry,
            restored: Optional[Checkpoint] = None) -> Prepared:
    """Check `options` and create the parts of the training.

    Args:
        options: what to train.
        registry: where names are looked up.
        restored: the checkpoint from which the training continues; its classes and preprocessing
            stay. Weights are not loaded then.

    Raises:
        IpucnnError: anything the user can act on.
    """
    draft = _on_backend(options, registry, restored)
    _share(draft)
    _check_dataset(draft)
    dataset, request = _training_images(draft)
    _choose_values(draft, dataset)
    options, plan, instances = draft.options, draft.plan, draft.instances
    rate, scaling = learning_rate(options, registry), loss_scaling(options)
    optimizer = optimizer_choice(options, registry)
    _check_training_images(draft, dataset)
    validation = _validation_images(draft, request)
    check_shared(instances, dataset)
    check_shared(instances, validation, "validation ")
    calls = _calls(draft, dataset)
    draft.notes += notes_on_length(options, rate, calls)
    built = _network(draft, dataset, validation)
    match = _match(draft, dataset, built.card, "training")
    validation_match = _match(draft, validation, built.card, "validation")
    check_outputs(dataset, match)
    draft.notes += [each.note for each in (match, validation_match) if each and each.note]
    draft.notes += similar_names(dataset.class_names, match) if match else []
    freeze(built.module, options)
    factors, head = layers_of(built.module, options.fine_tuning)
    instances.share(built.module.state_dict())
    loss = make_loss(options, registry)
    dataset, counts, class_notes = balanced(options, dataset, match, loss, built.num_outputs)
    loss.check(built.num_outputs)
    setup = TrainingSetup(
        loss=loss, optimizer=optimizer, loss_scaling=scaling.at(0),
        ema_decay=options.optimisation.ema_decay,
        tolerate_non_finite=options.optimisation.skip_non_finite > 0,
        metrics=not options.results.disable_metrics, mix=options.augmentation.mixing,
        rate_factors=factors, head=head)
    loggers = [] if instances.index else make_loggers(options, registry)
    draft.notes += dict.fromkeys((*dataset.notes, *(validation.notes if validation else ()),
                                  *enlarged(dataset, built.input_size), *class_notes))
    return Prepared(draft.given, plan, draft.chosen, draft.data, dataset, validation, match,
                    validation_match, built, setup, rate, scaling, instances, loggers,
                    min(calls, options.execution.iterations or calls),
                    draft.notes + _notes(draft), registry, counts)


@dataclass
class _Draft:
    """A training that is being prepared.

    Attributes:
        given: the options as given, with the values that were chosen; they are saved.
        options: the same as they are executed: with the input size of half-resolution training,
            and without folders that the dataset does not read.
        plan: the execution plan; it has the preprocessing once the images are open.
        chosen: the backend.
        data: the dataset's record.
        registry: where names are looked up.
        restored: the checkpoint from which the training continues.
        notes: notes for the user.
        instances: the processes of the training.
    """

    given: TrainOptions
    options: TrainOptions
    plan: ExecutionPlan
    chosen: Chosen
    data: DatasetSpec
    registry: Registry
    restored: Optional[Checkpoint]
    notes: List[str]
    instances: Instances = ALONE

    def choose(self, **values: Any) -> None:
        """Set options by flat name."""
        self.given = self.given.with_values(**values)
        self.options = self.options.with_values(**values)


def _on_backend(options: TrainOptions, registry: Registry,
                restored: Optional[Checkpoint]) -> _Draft:
    """Return the draft of a training on a backend that supports it."""
    model = registry.get_typed(ModelSpec, options.network.model)
    data = registry.get_typed(DatasetSpec, options.dataset.data)
    given, notes = fitted(fitted_to_machine(options, data.on_device, registry))
    registry.get_typed(NormLayerSpec, given.network.normlayer)  # rejects unknown names, as below
    size = foreseen_size(given, data, model)
    given, options = (with_balanced_splits(each, registry, input_size=size)
                      for each in (given, sized(given, registry)))
    learning_rate(options, registry), optimizer_choice(options, registry)
    plan = options.plan(data.on_device, sharing(options.execution.pipeline_splits))
    draft = _Draft(given, options, plan, choose_backend(options, plan, registry), data, registry,
                   restored, notes)
    if options.execution.precision is None:
        draft.chosen, draft.plan = settled(draft.chosen, plan)
        draft.choose(precision=draft.plan.precision)
    backend = draft.chosen.spec
    check_offer(draft.options, draft.plan, backend, registry)
    if options.augmentation.mixing.enabled and not backend.mixup:
        raise UsageError(f"backend {backend.name!r} does not mix images: '--mixup-alpha' and "
                         "'--cutmix-lambda-high' have no effect there",
                         "leave them out, or choose another '--backend'")
    return draft


def _share(draft: _Draft) -> None:
    """Connect the processes of the training; all use the seed of the first one."""
    draft.instances = draft.chosen.join(draft.plan)
    if draft.instances.count == 1:
        return
    if draft.options.dataset.skip_bad_samples:
        raise UsageError("'--skip-bad-samples' would move images between instances",
                         "find bad images with 'ipucnn data verify', and leave the option out")
    check_options(draft.instances, draft.options)
    check_start(draft.instances, draft.restored)
    # the same random numbers everywhere, regardless of each host's profile
    seed = draft.instances.gather(draft.options.dataset.seed)[0]
    draft.choose(seed=seed)
    draft.plan = replace(draft.plan, seed=seed)


def _check_dataset(draft: _Draft) -> None:
    """Check the options of the dataset, and leave out folders that it does not read."""
    _check_labels(draft.data, "train on")
    draft.notes += notes_on_idle(draft.options, draft.data, draft.registry)
    if not draft.data.reads_folder:
        # old scripts that change only '--data' still name ImageNet's folder
        draft.options = draft.options.with_values(data_dir=None, validation_data_dir=None)
    check_dataset_options(draft.options.dataset, draft.data, {})


def _training_images(draft: _Draft) -> Tuple[ImageDataset, DatasetRequest]:
    """Open the training images, and choose their preprocessing.

    Returns:
        The images, and the arguments with which they were opened.
    """
    options, data, registry, restored = draft.options, draft.data, draft.registry, draft.restored
    preprocessing = preprocessing_for(options, data, registry, restored.card if restored else None)
    request = replace(
        request_of(options.network, options.dataset, preprocessing.input_size,
                   None if data.finite else endless_epoch(options, draft.plan)),
        split="train", hold_out=options.validation.holds_out)
    dataset = open_dataset(data, request, options.plugins, registry)
    if restored is None:
        preprocessing = usual(options, usual_record(data, dataset, registry), preprocessing)
        followed = None if registry.get_typed(ModelSpec, options.network.model).input_sizes else \
            followed_size(options, data, dataset, preprocessing.input_size)
        if followed is not None:
            draft.notes.append(size_note(followed, preprocessing.input_size))
            preprocessing = preprocessing.sized(followed)
            draft.choose(input_size=followed)
            request = replace(request, input_size=followed)
            dataset = open_dataset(data, request, options.plugins, registry)
    draft.plan = replace(draft.plan, preprocessing=preprocessing)
    return dataset, request


def _choose_values(draft: _Draft, dataset: ImageDataset) -> None:
    """Choose the values of options that the user did not set, by the training images."""
    images = len(dataset) if draft.data.finite else None
    if draft.options.execution.measured:
        network = with_classes(draft.options.network, draft.data, dataset)
        measured, note = with_measured_batch(draft.options, network, draft.chosen, draft.plan,
                                             images, (draft.instances, draft.registry))
        draft.choose(batch_size=measured.execution.batch_size)
        draft.notes.append(note)
    decisions = decided(draft.options, images, draft.registry, draft.restored is not None)
    draft.choose(**decisions.values)
    draft.notes += left_out_notes(draft.options, decisions.left_out)
    if decisions.note:
        draft.notes.append(decisions.note)
    draft.notes += accumulation_notes(draft.options)
    draft.plan = replace(draft.options.plan(draft.data.on_device, draft.plan.instances),
                         preprocessing=draft.plan.preprocessing)
    check_images(draft.plan)


def _check_training_images(draft: _Draft, dataset: ImageDataset) -> None:
    """Check that the loss and the backend support the labels of the training images."""
    _check_labels(as_opened(draft.data, dataset), "train on")
    check_loss(draft.options, dataset, draft.registry)
    check_classes(draft.data, dataset, draft.chosen.spec)


def _validation_images(draft: _Draft, request: DatasetRequest) -> Optional[ImageDataset]:
    """Return the validation images; None without validation.

    Args:
        draft: the training.
        request: the arguments with which the training images were opened.
    """
    options, data = draft.options, draft.data
    if options.validation.mode == "none" or data.on_device:
        return None
    elsewhere = options.validation.validation_data_dir
    length = request.length and min(request.length, draft.plan.combined_batch)
    images = open_dataset(
        data, replace(request, split=None if elsewhere else "validation", length=length),
        options.plugins, draft.registry, elsewhere)
    _check_labels(as_opened(data, images), "validate with")
    return images


def _calls(draft: _Draft, dataset: ImageDataset) -> int:
    """Return the host calls of an epoch.

    Raises:
        DataError: bounding boxes are requested, and there are none.
        UsageError: there are fewer images than a host call needs.
    """
    if draft.options.augmentation.use_bbox_info and not dataset.has_boxes:
        raise DataError(f"dataset {draft.data.name!r} has no bounding boxes here",
                        "ImageNet's are in 'imagenet_2012_bounding_boxes.csv' in '--data-dir'; "
                        "leave '--use-bbox-info' out, or add '--no-use-bbox-info' to a profile")
    call = draft.plan.combined_batch
    if len(dataset) < call:
        raise UsageError(
            f"one host call takes {call} images, but the dataset has {len(dataset)}",
            "use a smaller '--batch-size', '--gradient-accumulation', '--replicas' or "
            "'--device-iterations'")
    return len(dataset) // call


def _network(draft: _Draft, dataset: ImageDataset,
             validation: Optional[ImageDataset]) -> BuiltModel:
    """Return the network; a restored one after a comparison of the images with its checkpoint."""
    options, restored = draft.options, draft.restored
    card = restored.card if restored else None
    if restored is not None and card is not None:
        card, changes = compared(restored, dataset, options.dataset.match_classes,
                                 f"dataset {draft.data.name!r}")
        draft.notes += [*changes, *moved(restored, dataset, validation)]
        if options.augmentation.augmentation != "none":
            draft.notes += crop_as_before(restored, dataset)
    built = network_for(options, draft.data, dataset, draft.registry, card, draft.notes)
    return built.with_card(preprocessing=draft.plan.preprocessing, precision=draft.plan.precision,
                           multi_label=dataset.multi_label)


def _match(draft: _Draft, images: Optional[ImageDataset], card: ModelCard,
           split: str) -> Optional[ClassMatch]:
    """Return the model's class for each label of a split; None without labels."""
    if images is None or not as_opened(draft.data, images).labelled:
        return None
    return match_classes(images.class_names, card.class_names, card.classes,
                         draft.options.dataset.match_classes,
                         f"the {split} split of dataset {draft.data.name!r}",
                         new=draft.restored is None)


def _check_labels(data: DatasetSpec, purpose: str) -> None:
    if data.finite and not data.labelled:
        raise UsageError(f"dataset {data.name!r} has no labels to {purpose}",
                         "'--data image_folder' takes one folder per class")


def _notes(draft: _Draft) -> List[str]:
    """Return the notes about the backend and its arithmetic."""
    chosen, plan = draft.chosen, draft.plan
    notes = [f"backend {chosen.spec.name!r}: {chosen.why}"] if chosen.why else []
    notes += chosen.probe.notes
    if plan.precision == "16.16" and chosen.probe.half == "bfloat16":
        notes.append("weights in bfloat16 lose updates below 1/256 of their size, which slows "
                     "learning down: '--precision 16.32' or 'full' keeps them")
    norm = draft.registry.get_typed(NormLayerSpec, draft.options.network.normlayer)
    if plan.micro_batch == 1 and norm.batch_dependent:
        notes.append("batch norm over a micro-batch of 1 makes training unstable: use a larger "
                     "'--batch-size' or '--normlayer group'")
    return notes
