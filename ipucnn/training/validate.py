"""The job behind `ipucnn validate`: evaluates stored checkpoints."""

from __future__ import annotations

import copy
import csv
import io
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ipucnn.core.environment import describe
from ipucnn.core.errors import DataError, IpucnnError, UsageError
from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.launching import fitted, is_first, sharing
from ipucnn.core.execution.losses import Loss
from ipucnn.core.execution.offers import check_offer
from ipucnn.core.execution.selection import choose_backend
from ipucnn.core.execution.session_checks import opened
from ipucnn.core.execution.training_session import StateDict
from ipucnn.core.files import write_text
from ipucnn.core.names import key
from ipucnn.core.options.attributes import VALIDATION
from ipucnn.core.options.building import build
from ipucnn.core.options.composition import settings
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.owners import AUTO, builtin_owners, owner_of
from ipucnn.core.progress import Listener
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.dataset_checks import check_shared
from ipucnn.data.formats.recognition import format_of
from ipucnn.data.opening import (
    as_opened,
    check_dataset_options,
    open_dataset,
    request_of,
    takes_folder_of,
)
from ipucnn.models.batch_of_inference import Inference
from ipucnn.models.batch_of_inference import check as check_measurable
from ipucnn.models.checkpoint_files import entries
from ipucnn.models.class_names import match_classes
from ipucnn.models.store_paths import place_of, shown_path
from ipucnn.training.checkpoints.saved_plugins import UNNEEDED
from ipucnn.training.checkpoints.stored import StoredModel, build_stored, load_stored, options_of
from ipucnn.training.image_cache import ImageCaches, is_cached, validation_images
from ipucnn.training.metrics.validation import Evaluator, Interrupted, Validation, Validations
from ipucnn.training.options.stored_options import ValidateOptions, ValidationResults
from ipucnn.training.options.train_options import TrainOptions, ValidatedTraining
from ipucnn.training.options.training_parts import AugmentationPart
from ipucnn.training.setup.idle_options import notes_on_idle
from ipucnn.training.setup.loss_of_training import check_loss, make_loss


def validate(options: ValidateOptions, registry: Optional[Registry] = None,
             listener: Optional[Listener] = None) -> Validations:
    """Validate a checkpoint, or all checkpoints of a folder in the order of their epochs.

    Damaged checkpoints of a folder are reported and skipped.

    Args:
        options: the checkpoints and the dataset; by default as in the training.
        registry: where names are looked up; this process's when not given.
        listener: receives progress.

    Returns:
        The validations; `stopped_by` is set when the listener ended them early.

    Raises:
        IpucnnError: anything the user can act on; `partial` holds the validations done.
    """
    registry = registry or current_registry()
    listener = listener or Listener()
    if not options.checkpoints.checkpoint_path:
        raise UsageError("a checkpoint is required", "add '--checkpoint-path FILE|DIR'")
    options.results.check_places(options)
    place = place_of(options.checkpoints.checkpoint_path)
    paths = [entry.path for entry in entries(place, averaged=True)] if place.is_dir() else [place]
    if not paths:
        raise DataError(f"there are no checkpoints in '{shown_path(place)}'",
                        "name a folder that '--checkpoint-path' of a training wrote")
    found = Validations()
    single = len(paths) == 1
    with closing(_Evaluators(options, registry, listener, single)) as evaluators:
        try:
            for path in paths:
                stored = load_stored(path) if single else _readable(path, listener)
                if stored is not None:
                    evaluator = evaluators.of(stored)
                    found += _validated(stored, path, evaluator, options, listener)
                    found.details = evaluators.details
        except Interrupted as interrupt:
            found.stopped_by = str(interrupt)
        except IpucnnError as error:
            error.partial = found
            raise
    if not found and not found.stopped_by:
        raise DataError(f"none of the checkpoints in '{shown_path(place)}' can be read",
                        "restore them from a copy")
    skipped = max((one.skipped for one in found), default=0)
    if skipped:
        listener.note(f"{skipped} image{'s' * (skipped > 1)} that cannot be read "
                      f"{'is' if skipped == 1 else 'are'} not counted: 'ipucnn data verify' names "
                      f"{'it' if skipped == 1 else 'them'}")
    if found and evaluators.latest is not None and is_first():
        try:
            _document(found, evaluators.latest.dataset, options.results)
        except IpucnnError as error:
            error.partial = found
            raise
    return found


def _readable(path: Path, listener: Listener) -> Optional[StoredModel]:
    """Return the model in a checkpoint of a folder, or None if it is damaged."""
    try:
        return load_stored(path)
    except IpucnnError as error:
        listener.note(f"'{shown_path(path)}' is skipped: {error.message}")
        return None


class _Evaluators:
    """Creates evaluators; the latest one serves all checkpoints of the same model and options.

    Args:
        options: of the validation.
        registry: where names are looked up.
        listener: receives notes.
        single: whether there is one checkpoint only.

    Attributes:
        latest: the evaluator of the last checkpoint.
        details: of its model, for a report.
    """

    def __init__(self, options: ValidateOptions, registry: Registry, listener: Listener,
                 single: bool) -> None:
        self._options, self._registry, self._listener = options, registry, listener
        self._single = single
        self._caches = ImageCaches()
        self._identity: Tuple[Any, ...] = ()
        self.latest: Optional[Evaluator] = None
        self.details: Dict[str, Any] = {}

    def of(self, stored: StoredModel) -> Evaluator:
        """Return the evaluator of a stored model."""
        if self.latest is None or self._identity != _identity(stored):
            if self.latest is not None:
                self.latest.close()
            once = self._single and len(_wanted(stored, self._options)) == 1
            self.latest, self.details = _evaluator(stored, self._options, self._registry,
                                                   self._listener, self._caches, once)
            self._identity = _identity(stored)
        return self.latest

    def close(self) -> None:
        """Close the latest evaluator and the caches of images."""
        if self.latest is not None:
            self.latest.close()
        self._caches.close()


def _document(found: Validations, dataset: ImageDataset, results: ValidationResults) -> None:
    """Write the confusion matrix of the last validation, and add its evidence, if requested."""
    if results.documented:
        found.picture(dataset)
    if results.confusion_matrix:
        _write_matrix(results.confusion_matrix, found[-1])


def _validated(stored: StoredModel, path: Path, evaluator: Evaluator, options: ValidateOptions,
               listener: Listener) -> List[Validation]:
    if options.checkpoints.ema and stored.ema is None:
        raise UsageError(f"checkpoint '{shown_path(path)}' has no moving average",
                         "leave '--ema' out")
    found = []
    for kind, weights in _wanted(stored, options):
        validation = evaluator(weights, stored.epoch, kind, shown_path(path), listener)
        found.append(validation)
        listener.line(f"{path.name}, epoch {stored.epoch}{validation.label}: "
                      f"loss {validation.loss:.4f}, top-5 {validation.top5:.2f}%")
        listener.line(f"Accuracy on test set: {validation.top1:.2f}%")
    return found


def _wanted(stored: StoredModel, options: ValidateOptions) -> List[Tuple[str, StateDict]]:
    """Return the weights of a checkpoint to validate, and what they are."""
    wanted = [("raw", stored.weights)] if options.checkpoints.ema is not True else []
    if stored.ema is not None and options.checkpoints.ema is not False:
        wanted.append(("ema", stored.ema))
    return wanted


def _identity(stored: StoredModel) -> Tuple[Any, ...]:
    return stored.name, stored.dataset, repr(sorted(stored.options.items())), stored.class_names, \
        tuple(stored.class_counts)


def _evaluator(stored: StoredModel, given: ValidateOptions, registry: Registry, listener: Listener,
               caches: ImageCaches, once: bool) -> Tuple[Evaluator, Dict[str, Any]]:
    """Return the evaluator of a stored model, and the details of it for a report.

    Args:
        stored: the model.
        given: the options of the validation.
        registry: where names are looked up.
        listener: receives notes.
        caches: of decoded images.
        once: whether every image is used only once.
    """
    options = _checked_options(stored, given, registry, listener)
    data = registry.get_typed(DatasetSpec, options.dataset.data)
    elsewhere = _elsewhere(options, data)
    plan = options.validation_plan(sharing(options.execution.pipeline_splits))
    chosen = choose_backend(options, plan, registry, trains=True)
    check_offer(options, plan, chosen.spec, registry)
    instances = chosen.join(plan)
    built = build_stored(stored, registry)
    plan = replace(plan, preprocessing=built.preprocessing)
    request = replace(
        request_of(options.network, options.dataset, built.input_size,
                   None if data.finite else plan.combined_batch), num_classes=None,
        hold_out=options.validation.holds_out,
        split=None if elsewhere else "validation",
        data_dir=elsewhere or options.dataset.data_dir)
    dataset = _images(given, options, data, request, registry, listener)
    check_shared(instances, dataset, "validation ")
    match = match_classes(dataset.class_names, built.card.class_names, built.card.classes,
                          options.dataset.match_classes, f"dataset {data.name!r}") \
        if data.labelled else None
    if match is not None and match.note:
        listener.note(match.note)
    plan = plan.for_images(len(dataset))
    if options.execution.measured:
        options, note = _with_measured_batch(options, Inference(
            options, chosen, plan, built, len(dataset), registry))
        listener.note(note)
        plan = replace(plan, micro_batch=options.execution.micro_batch).for_images(len(dataset))
    cache = None
    if is_cached(options, data, dataset, listener.note, once):
        # checkpoints of a folder may differ in options, but have the same images
        own = [value for kind, _, value in options.plugins.declared() if kind == "dataset"]
        cache = caches.of(
            validation_images(options, data, dataset, plan.preprocessing, instances), listener.note,
            repr((data.name, request, own, plan.preprocessing)))
    evaluator = Evaluator(built.module, chosen.backend,
                          _loss(options, stored, built.num_outputs, registry, listener), plan,
                          dataset, built.card, match, options.dataset.dataloader_worker,
                          options.dataset.skip_bad_samples, instances, cache, chosen.plugin)
    return evaluator, {
        "model": stored.name, "dataset": data.name, "backend": chosen.spec.name,
        "device": chosen.probe.device, "options": options.recorded(),
        "environment": {**describe(), "backend": chosen.probe.versions},
        "card": built.card.as_plain()}


def _checked_options(stored: StoredModel, given: ValidateOptions, registry: Registry,
                     listener: Listener) -> TrainOptions:
    """Return the options of a validation, after a check against its dataset and backend."""
    options = validation_options(stored, given, registry)
    if options.execution.measured:
        check_measurable(options)
    _check_backend_options(given, options.execution.backend, registry)
    data = registry.get_typed(DatasetSpec, options.dataset.data)
    if data.on_device or not (data.labelled or data.name == stored.dataset):
        raise _no_labels(data)
    place = _elsewhere(options, data) or options.dataset.data_dir
    check_dataset_options(replace(options.dataset, data_dir=place), data, {
        "--validation-data-dir": bool(given.dataset.validation_data_dir) and not data.reads_folder})
    options, notes = fitted(options)
    for note in (*notes, *notes_on_idle(options, data, registry, given.overrides())):
        listener.note(note)
    return options


def _elsewhere(options: TrainOptions, data: DatasetSpec) -> Optional[str]:
    """Return the folder of the validation images if it is another than that of the dataset."""
    return options.validation.validation_data_dir if data.reads_folder else None


def _images(given: ValidateOptions, options: TrainOptions, data: DatasetSpec,
            request: DatasetRequest, registry: Registry, listener: Listener) -> ImageDataset:
    """Open the images, and check that their labels suit the validation."""
    place = request.data_dir
    every = f": '--validation-data-dir {place}' validates all images of {place!r}" if place else ""
    dataset = open_dataset(
        data, request, options.plugins, registry,
        no_split_hint=f"name their folder with '--validation-data-dir'{every}")
    if as_opened(data, dataset) is not data:
        raise _no_labels(data)
    for note in (*dataset.notes, *_on_a_share(given, options, dataset)):
        listener.note(note)
    check_loss(options, dataset, registry, "a checkpoint is validated with the loss of its "
               "training: name images of one class each; 'ipucnn run' classifies these")
    _check_tables(given, data, dataset)
    return dataset


def _loss(options: TrainOptions, stored: StoredModel, outputs: int, registry: Registry,
          listener: Listener) -> Loss:
    """Return the loss of the training, with the number of its images per class."""
    loss = make_loss(options, registry)
    if loss.needs_counts:
        if not stored.class_counts:
            listener.note("the checkpoint does not contain the number of training images per "
                          "class: the classes have equal weights in the loss")
        loss.count_classes(stored.class_counts or [1] * outputs)
        loss.check(outputs)
    return loss


def _with_measured_batch(options: TrainOptions, inference: Inference) -> Tuple[TrainOptions, str]:
    """Return the options with a number for `--batch-size auto`, and a note."""
    def session(size: int) -> InferenceSession:
        plan = replace(inference.plan, micro_batch=size).for_images(inference.images or size)
        made = inference.chosen.backend.inference(
            copy.deepcopy(inference.built.module), plan, inference.built.input_size)
        return opened(made, InferenceSession, inference.chosen.plugin)

    found = inference.fastest(session)
    return options.with_values(batch_size=found.size), found.note


def _check_backend_options(given: ValidateOptions, backend: str, registry: Registry) -> None:
    """Raise an error for options of the backend that do not apply to validation."""
    owners = builtin_owners(["backend"], registry)
    if key(backend) != AUTO:
        selected = owner_of(KINDS["backend"], registry.get("backend", backend), registry)
        owners += [selected] if selected is not None else []
    for name, item in given.plugins.undecided.items():
        declared_by = [own for owner in owners for own in [owner.option(name)] if own is not None]
        if item in declared_by and not any(own.option.validation for own in declared_by):
            raise UsageError(f"'{item.flag}' does not apply to validation", "leave it out")


def _on_a_share(given: ValidateOptions, options: TrainOptions, dataset: ImageDataset) -> List[str]:
    """Return the note if only the held-out share of another folder is validated."""
    place = given.dataset.data_dir
    if not place or options.validation.validation_data_dir or not dataset.held_out:
        return []
    return [f"validation counts the {len(dataset)} images that a training on {place!r} would hold "
            f"out: '--validation-data-dir {place}' counts all"]


def _check_tables(given: ValidateOptions, data: DatasetSpec, dataset: ImageDataset) -> None:
    """Raise an error for tables of one class per image if images can have several."""
    if not dataset.multi_label:
        return
    for flag, wanted in (("--per-class", given.results.per_class),
                         ("--confusion-matrix", bool(given.results.confusion_matrix))):
        if wanted:
            raise UsageError(f"'{flag}' counts images by their one class, and images of dataset "
                             f"{data.name!r} may have several here",
                             "leave it out; 'ipucnn run --predictions FILE' writes the labels and "
                             "the probability of every class")


def validation_options(stored: StoredModel, given: ValidateOptions,
                       registry: Registry) -> TrainOptions:
    """Return the options of the stored training with the given ones replaced.

    Options that describe the machine of the training, those of its random augmentation, those of
    replaced plugins, and folders if another dataset reads none, are not inherited. The dataset is
    replaced for a folder of another format (`format_of`). Of options of a backend that was selected
    automatically, those are inherited that every backend with them has in a validation.
    """
    owners = builtin_owners(["backend"], registry)
    overrides = given.overrides()
    trained = options_of(stored, registry, overrides, given.kinds, UNNEEDED)
    used = registry.get_typed(DatasetSpec, trained.dataset.data)
    place = overrides.get("validation_data_dir") or overrides.get("data_dir") or (
        trained.validation.validation_data_dir if used.reads_folder else None)
    if place and "data" not in overrides:
        found = format_of(place, used, registry)
        if found is not used:
            overrides["data"] = found.name
    replaced = [kind for kind in given.kinds for selector in [KINDS[kind].selector]
                if overrides.get(selector, trained.get(selector)) != trained.get(selector)]
    others = {name for name, (item, _) in settings(trained).items()
              if item.option.machine or not item.option.applies_to(VALIDATION)}
    others |= {item.name for item in declared(AugmentationPart)}
    others |= {name for name in trained.plugins.deferred for owner in owners
               if owner.option(name) and not owner.option(name, VALIDATION)}
    if "data" in overrides and not takes_folder_of(
            registry.get_typed(DatasetSpec, overrides["data"]), used):
        others |= {"data_dir", "validation_data_dir"}
    saved = {name: value for name, value in trained.as_dict(without=replaced).items()
             if name not in others}
    return build(ValidatedTraining, saved, overrides, registry=registry)


def _no_labels(data: DatasetSpec) -> UsageError:
    return UsageError(f"dataset {data.name!r} has no labels to validate with",
                      "choose another with '--data'")


def _write_matrix(path: str, validation: Validation) -> None:
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["true / predicted", *validation.class_names])
    for name, row in zip(validation.class_names, validation.confusion):
        writer.writerow([name, *row])
    write_text(path, table.getvalue())
