"""Creates and checks the parts of a training: plan, backend, datasets, model, loss, loggers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import List, Mapping, Optional, Tuple

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.execution.instances import Instances
from ipucnn.core.execution.launching import fitted, sharing
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import Chosen, check_offer, choose_backend, settled
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
from ipucnn.models.class_names import ClassMatch, match_classes
from ipucnn.models.memory_checks import check_images
from ipucnn.training.agreement import check_images as check_shared_images
from ipucnn.training.agreement import check_options
from ipucnn.training.batch_of_training import with_measured_batch
from ipucnn.training.checkpoints import Checkpoint
from ipucnn.training.class_balance import balanced, check_classes, check_outputs
from ipucnn.training.defaults import decided, followed_size, foreseen_size, size_note
from ipucnn.training.idle_options import notes_on_idle, notes_on_length
from ipucnn.training.loss_of_training import check_loss, make_loss
from ipucnn.training.network_of_training import network_for, preprocessing_for, sized, usual
from ipucnn.training.options import TrainOptions
from ipucnn.training.outline import accumulation_notes, endless_epoch
from ipucnn.training.parameters import freeze, layers_of
from ipucnn.training.rates import (
    LearningRate,
    LossScaling,
    learning_rate,
    loss_scaling,
    optimizer_choice,
)
from ipucnn.training.run_loggers import make_loggers
from ipucnn.training.trained_data import compared, crop_as_before, moved


@dataclass
class Prepared:
    """The parts of a training.

    Attributes:
        options: the options as given.
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
    model = registry.get_typed(ModelSpec, options.network.model)
    data = registry.get_typed(DatasetSpec, options.dataset.data)
    options, notes = fitted(fitted_to_machine(options, data.on_device, registry))
    given, options = options, sized(options, registry)
    norm = registry.get_typed(NormLayerSpec, options.network.normlayer)
    size = foreseen_size(given, data, model)
    given, options = (with_balanced_splits(each, registry, input_size=size)
                      for each in (given, options))
    learning_rate(options, registry), optimizer_choice(options, registry)  # rejects unknown names
    plan = options.plan(data.on_device, sharing(options.execution.pipeline_splits))
    chosen = choose_backend(options, plan, registry)
    if options.execution.precision is None:
        chosen, plan = settled(chosen, plan)
        given, options = (each.with_values(precision=plan.precision)
                          for each in (given, options))
    check_offer(options, plan, chosen.spec, registry)
    if options.augmentation.mixing.enabled and not chosen.spec.mixup:
        raise UsageError(f"backend {chosen.spec.name!r} does not mix images: '--mixup-alpha' and "
                         "'--cutmix-lambda-high' have no effect there",
                         "leave them out, or choose another '--backend'")
    instances = chosen.join(plan)
    if instances.count > 1:
        _check_shared(options)
        check_options(instances, options)
        # the same random numbers everywhere, regardless of each host's profile
        seed = instances.gather(options.dataset.seed)[0]
        given, options, plan = (given.with_values(seed=seed), options.with_values(seed=seed),
                                replace(plan, seed=seed))
    _check_labels(data, "train on")
    notes += notes_on_idle(options, data, registry)
    if not data.reads_folder:
        # old scripts that change only '--data' still name ImageNet's folder
        options = options.with_values(data_dir=None, validation_data_dir=None)
    check_dataset_options(options.dataset, data, {})
    length = endless_epoch(options, plan)
    continued = restored.card if restored else None
    preprocessing = preprocessing_for(options, data, registry, continued)
    plan = replace(plan, preprocessing=preprocessing)
    request = replace(request_of(options.network, options.dataset, preprocessing.input_size),
                      hold_out=options.validation.holds_out)
    dataset = open_dataset(data, replace(request, split="train",
                                         length=None if data.finite else length),
                           options.plugins, registry)
    if restored is None:
        preprocessing = usual(options, usual_record(data, dataset, registry), preprocessing)
        plan = replace(plan, preprocessing=preprocessing)
    followed = None if restored or model.input_sizes else followed_size(
        options, data, dataset, preprocessing.input_size)
    if followed is not None:
        notes.append(size_note(followed, preprocessing.input_size))
        preprocessing = preprocessing.sized(followed)
        plan = replace(plan, preprocessing=preprocessing)
        given, options = (each.with_values(input_size=followed) for each in (given, options))
        request = replace(request, input_size=followed)
        dataset = open_dataset(data, replace(request, split="train"), options.plugins, registry)
    if options.execution.measured:
        network = with_classes(options.network, data, dataset)
        options, note = with_measured_batch(options, network, chosen, plan,
                                            len(dataset) if data.finite else None,
                                            (instances, registry))
        given = given.with_values(batch_size=options.execution.batch_size)
        notes.append(note)
    decisions = decided(options, len(dataset) if data.finite else None, registry,
                        restored is not None)
    given, options = (each.with_values(**decisions.values) for each in (given, options))
    notes += left_out_notes(options, decisions.left_out)
    if decisions.note:
        notes.append(decisions.note)
    notes += accumulation_notes(options)
    plan = replace(options.plan(data.on_device, plan.instances), preprocessing=preprocessing)
    check_images(plan)
    rate, scaling = learning_rate(options, registry), loss_scaling(options)
    optimizer = optimizer_choice(options, registry)
    _check_labels(as_opened(data, dataset), "train on")
    check_loss(options, dataset, registry)
    check_classes(data, dataset, chosen.spec)
    validation = _validation_images(options, data, replace(
        request, length=None if data.finite else min(length, plan.combined_batch)), registry)
    check_shared_images(instances, dataset)
    calls = _calls(options, data, dataset, plan)
    notes += notes_on_length(options, rate, calls)
    if restored is not None and continued is not None:
        continued, changes = compared(restored, dataset, options.dataset.match_classes,
                                      f"dataset {data.name!r}")
        notes += [*changes, *moved(restored, dataset, validation)]
        if options.augmentation.augmentation != "none":
            notes += crop_as_before(restored, dataset)
    built = network_for(options, data, dataset, registry, continued, notes)
    built = built.with_card(preprocessing=preprocessing, precision=plan.precision,
                            multi_label=dataset.multi_label)
    labels = [_match(options, data, each, built.card, split)
              for each, split in ((dataset, "training"), (validation, "validation"))]
    check_outputs(dataset, labels[0])
    notes += [match.note for match in labels if match is not None and match.note]
    freeze(built.module, options)
    factors, head = layers_of(built.module, options.fine_tuning)
    instances.share(built.module.state_dict())
    loss = make_loss(options, registry)
    dataset, counts, class_notes = balanced(options, dataset, labels[0], loss, built.num_outputs)
    loss.check(built.num_outputs)
    setup = TrainingSetup(
        loss=loss, optimizer=optimizer, loss_scaling=scaling.at(0),
        ema_decay=options.optimisation.ema_decay,
        tolerate_non_finite=options.optimisation.skip_non_finite > 0,
        metrics=not options.results.disable_metrics, mix=options.augmentation.mixing,
        rate_factors=factors, head=head)
    loggers = [] if instances.index else make_loggers(options, registry)
    notes += dict.fromkeys((*dataset.notes, *(validation.notes if validation else ()),
                            *enlarged(dataset, built.input_size), *class_notes))
    return Prepared(given, plan, chosen, data, dataset, validation, labels[0], labels[1],
                    built, setup, rate, scaling, instances, loggers,
                    min(calls, options.execution.iterations or calls),
                    notes + _notes(plan, chosen, norm), registry, counts)


def _validation_images(options: TrainOptions, data: DatasetSpec, request: DatasetRequest,
                       registry: Registry) -> Optional[ImageDataset]:
    """Return the validation images; None without validation."""
    if options.validation.mode == "none" or data.on_device:
        return None
    elsewhere = options.validation.validation_data_dir
    images = open_dataset(data, replace(request, split=None if elsewhere else "validation"),
                          options.plugins, registry, elsewhere)
    _check_labels(as_opened(data, images), "validate with")
    return images


def _calls(options: TrainOptions, data: DatasetSpec, dataset: ImageDataset,
           plan: ExecutionPlan) -> int:
    """Return the host calls of an epoch.

    Raises:
        DataError: bounding boxes are requested, and there are none.
        UsageError: there are fewer images than a host call needs.
    """
    if options.augmentation.use_bbox_info and not dataset.has_boxes:
        raise DataError(f"dataset {data.name!r} has no bounding boxes here",
                        "ImageNet's are in 'imagenet_2012_bounding_boxes.csv' in '--data-dir'; "
                        "leave '--use-bbox-info' out, or add '--no-use-bbox-info' to a profile")
    calls = len(dataset) // plan.combined_batch
    if calls < 1:
        raise UsageError(
            f"one host call takes {plan.combined_batch} images, but the dataset has {len(dataset)}",
            "use a smaller '--batch-size', '--gradient-accumulation', '--replicas' or "
            "'--device-iterations'")
    return calls


def _match(options: TrainOptions, data: DatasetSpec, images: Optional[ImageDataset],
           card: ModelCard, split: str) -> Optional[ClassMatch]:
    """Return the model's class for each label of a split; None without labels."""
    if images is None or not as_opened(data, images).labelled:
        return None
    return match_classes(images.class_names, card.class_names, card.classes,
                         options.dataset.match_classes,
                         f"the {split} split of dataset {data.name!r}")


def _check_labels(data: DatasetSpec, purpose: str) -> None:
    if data.finite and not data.labelled:
        raise UsageError(f"dataset {data.name!r} has no labels to {purpose}",
                         "'--data image_folder' takes one folder per class")


def _check_shared(options: TrainOptions) -> None:
    if options.dataset.skip_bad_samples:
        raise UsageError("'--skip-bad-samples' would move images between instances",
                         "find bad images with 'ipucnn data verify', and leave the option out")


def _notes(plan: ExecutionPlan, chosen: Chosen, norm: NormLayerSpec) -> List[str]:
    notes = [f"backend {chosen.spec.name!r}: {chosen.why}"] if chosen.why else []
    notes += chosen.probe.notes
    if plan.precision == "16.16" and chosen.probe.half == "bfloat16":
        notes.append("weights in bfloat16 lose updates below 1/256 of their size, which slows "
                     "learning down: '--precision 16.32' or 'full' keeps them")
    if plan.micro_batch == 1 and norm.batch_dependent:
        notes.append("batch norm over a micro-batch of 1 makes training unstable: use a larger "
                     "'--batch-size' or '--normlayer group'")
    return notes
