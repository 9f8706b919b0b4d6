"""The job behind `ipucnn validate`: what stored checkpoints score."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ipucnn.core.errors import DataError, IpucnnError, UsageError
from ipucnn.core.execution.instances import fitted, launched_count, speaks
from ipucnn.core.execution.selection import check_offer, choose_backend
from ipucnn.core.options import TrainOptions, ValidateOptions
from ipucnn.core.options.declaration import build, declared
from ipucnn.core.registry.records import DatasetSpec, ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.inference.preparation import as_made, check_data_options, make_dataset, make_model
from ipucnn.training.checkpoint_folder import entries
from ipucnn.training.preparation import sized
from ipucnn.training.stored import StoredModel, load_stored
from ipucnn.training.train_result import Listener
from ipucnn.training.validation import Evaluator, Interrupted, Validation

_OF_THE_MACHINE = ("dataloader_mode", "dataloader_rebatch_size", "data_cache_dir",
                   "data_cache_size")
_OF_THE_RUN = ("data", "data_dir", "validation_data_dir", "skip_bad_samples", "dataloader_worker",
               "backend", "device", "batch_size", "device_iterations", "replicas", "precision",
               *_OF_THE_MACHINE)


def validate(options: ValidateOptions, registry: Optional[Registry] = None,
             listener: Optional[Listener] = None) -> List[Validation]:
    """Validate a checkpoint, or all checkpoints of a folder in the order of their epochs.

    A damaged checkpoint of a folder is told and left out.

    Args:
        options: what to validate, and on what; the rest is as the checkpoint was trained.
        registry: where names are looked up; this process's when not given.
        listener: told how it goes.

    Raises:
        IpucnnError: anything the user can act on; `partial` holds the validations done.
    """
    registry = registry or current_registry()
    listener = listener or Listener()
    if not options.checkpoint_path:
        raise UsageError("no checkpoint is named", "add '--checkpoint-path FILE|DIR'")
    place = Path(options.checkpoint_path)
    paths = [entry.path for entry in entries(place)] if place.is_dir() else [place]
    if not paths:
        raise DataError(f"there are no checkpoints in '{place}'",
                        "name a folder that '--checkpoint-path' of a training wrote")
    found: List[Validation] = []
    evaluator: Optional[Evaluator] = None
    built_for: Tuple[Any, ...] = ()
    try:
        for path in paths:
            try:
                stored = load_stored(path)
            except IpucnnError as error:
                if len(paths) == 1:
                    raise
                listener.note(f"'{path}' is skipped: {error.message}")
                continue
            if evaluator is None or built_for != _identity(stored):
                if evaluator is not None:
                    evaluator.close()
                evaluator = _evaluator(stored, options, registry, listener)
                built_for = _identity(stored)
            found += _validated(stored, path, evaluator, options, listener)
    except Interrupted as interrupt:
        raise KeyboardInterrupt(str(interrupt)) from None
    except IpucnnError as error:
        error.partial = found
        raise
    finally:
        if evaluator is not None:
            evaluator.close()
    if not found:
        raise DataError(f"none of the checkpoints in '{place}' can be read",
                        "restore them from a copy")
    if options.confusion_matrix and speaks():
        _write_matrix(options.confusion_matrix, found[-1])
    return found


def _validated(stored: StoredModel, path: Path, evaluator: Evaluator, options: ValidateOptions,
               listener: Listener) -> List[Validation]:
    if options.ema and stored.ema is None:
        raise UsageError(f"checkpoint '{path}' has no moving average",
                         "leave '--ema' out")
    wanted = [("raw", stored.weights)] if options.ema is not True else []
    if stored.ema is not None and options.ema is not False:
        wanted.append(("ema", stored.ema))
    found = []
    for kind, weights in wanted:
        validation = evaluator(weights, stored.epoch, kind, str(path), listener)
        found.append(validation)
        listener.line(f"{path.name}, epoch {stored.epoch}{validation.label}: "
                      f"loss {validation.loss:.4f}, top-5 {validation.top5:.2f}%")
        listener.line(f"Accuracy on test set: {validation.top1:.2f}%")
    return found


def _identity(stored: StoredModel) -> Tuple[Any, ...]:
    return stored.name, stored.dataset, repr(sorted(stored.options.items())), stored.class_names


def _evaluator(stored: StoredModel, given: ValidateOptions, registry: Registry,
               listener: Listener) -> Evaluator:
    values: Dict[str, Any] = {**stored.options, "model": stored.name, "weights": "random"}
    values.setdefault("data", stored.dataset)
    for name in _OF_THE_MACHINE:
        values.pop(name, None)  # how images came to the device then says nothing of the model
    for name in _OF_THE_RUN:
        if getattr(given, name) is not None:
            values[name] = getattr(given, name)
    options = build(TrainOptions, {**values, "checkpoint_save_steps": None,
                                   "checkpoint_save_minutes": None})
    model = registry.get_typed(ModelSpec, options.model)
    options = sized(options, model)
    data = registry.get_typed(DatasetSpec, options.data)
    if data.on_device or not (data.labelled or data.name == stored.dataset):
        raise _no_labels(data)
    check_data_options(options, data, {})
    options, told = fitted(options)
    for note in told:
        listener.note(note)
    plan = options.validation_plan(launched_count())
    chosen = choose_backend(options.backend, registry, plan, trains=True)
    training_only: Dict[str, Any] = {item.name: item.default for item in declared(TrainOptions)
                                     if item.name in options.backend_options
                                     and item.name not in plan.backend_options}
    check_offer(replace(options, **training_only), plan, chosen.spec, registry)
    instances = chosen.join()
    elsewhere = options.validation_data_dir
    dataset = make_dataset(
        options, model, data, registry, length=None if data.finite else plan.combined_batch,
        split=None if elsewhere else "validation", data_dir=elsewhere or options.data_dir,
        class_names=stored.class_names)
    if as_made(data, dataset) is not data:
        raise _no_labels(data)
    for note in dataset.notes:
        listener.note(note)
    classes = len(stored.class_names) or options.num_classes
    if stored.class_names and data.labelled and dataset.class_names \
            and set(dataset.class_names) - set(stored.class_names):
        extra = sorted(set(dataset.class_names) - set(stored.class_names))
        raise DataError(f"the model was not trained on class {extra[0]!r} of dataset "
                        f"{data.name!r}", "validate on the classes it was trained on")
    built = make_model(replace(options, num_classes=classes) if classes else options, data,
                       dataset, registry)
    return Evaluator(built.module, chosen.backend, plan, built.input_size, dataset, data.labelled,
                     options.dataloader_worker, options.skip_bad_samples, instances)


def _no_labels(data: DatasetSpec) -> UsageError:
    return UsageError(f"dataset {data.name!r} has no labels to validate with",
                      "choose another with '--data'")


def _write_matrix(path: str, validation: Validation) -> None:
    try:
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["true / predicted", *validation.class_names])
            for name, row in zip(validation.class_names, validation.confusion):
                writer.writerow([name, *row])
    except OSError as error:
        raise DataError(f"cannot write {path!r}: {error.strerror or error}",
                        "free space or choose another place") from error
