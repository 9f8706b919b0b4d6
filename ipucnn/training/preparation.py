"""From options to everything that a training needs, checked before anything takes long."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import List, Optional

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.execution.instances import Instances, fitted, launched_count
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.selection import Chosen, check_offer, choose_backend
from ipucnn.core.execution.training_session import TrainingSetup
from ipucnn.core.options import TrainOptions
from ipucnn.core.registry.records import DatasetSpec, ModelSpec, NormLayerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data import ImageDataset
from ipucnn.inference.preparation import as_made, check_data_options, make_dataset, make_model
from ipucnn.models.build import BuiltModel
from ipucnn.training.loss import Loss
from ipucnn.training.mixing import MixOptions
from ipucnn.training.outline import endless_epoch
from ipucnn.training.parameters import train_from
from ipucnn.training.rates import (
    LearningRate,
    LossScaling,
    learning_rate,
    loss_scaling,
    optimizer_choice,
)


@dataclass
class Prepared:
    """What a training consists of.

    Attributes:
        options: as they were given.
        plan: what one host call executes.
        chosen: the backend.
        data: the dataset's record.
        dataset: its training images.
        validation: its validation images; None when nothing is validated.
        built: the model.
        setup: what the session is made for.
        rate: learning rate by fractional epoch.
        scaling: loss scaling by epoch.
        instances: the processes that share the training.
        calls: host calls of an epoch.
        notes: what the user should know.
        compile_seconds: what making the session ready took, when that is done.
    """

    options: TrainOptions
    plan: ExecutionPlan
    chosen: Chosen
    data: DatasetSpec
    dataset: ImageDataset
    validation: Optional[ImageDataset]
    built: BuiltModel
    setup: TrainingSetup
    rate: LearningRate
    scaling: LossScaling
    instances: Instances
    calls: int
    notes: List[str]
    compile_seconds: float = 0.0


def prepare(options: TrainOptions, registry: Registry) -> Prepared:
    """Check `options` and make what they name.

    Raises:
        IpucnnError: anything the user can act on.
    """
    model = registry.get_typed(ModelSpec, options.model)
    options, told = fitted(options)
    asked, options = options, sized(options, model)
    data = registry.get_typed(DatasetSpec, options.data)
    norm = registry.get_typed(NormLayerSpec, options.normlayer)
    rate, scaling = learning_rate(options, registry), loss_scaling(options)
    optimizer = optimizer_choice(options, registry)
    plan = options.plan(data.on_device, launched_count())
    chosen = choose_backend(options.backend, registry, plan)
    check_offer(options, plan, chosen.spec, registry)
    instances = chosen.join()
    if instances.count > 1:
        _check_shared(options)
        # the same random numbers everywhere, whatever each host's profile says
        seed = instances.gather(options.seed)[0]
        asked, options, plan = (replace(asked, seed=seed), replace(options, seed=seed),
                                replace(plan, seed=seed))
    _check_labels(data, "train on")
    if not data.reads_folder:
        # an old script that switches only '--data' keeps naming ImageNet's folder
        options = replace(options, data_dir=None)
    check_data_options(options, data, {})
    length = endless_epoch(options, plan)
    dataset = make_dataset(options, model, data, registry,
                           length=None if data.finite else length, split="train")
    _check_labels(as_made(data, dataset), "train on")
    validation = None
    elsewhere = options.validation_data_dir
    if options.validation != "none" and not data.on_device:
        validation = make_dataset(
            options, model, data, registry,
            length=None if data.finite else min(length, plan.combined_batch),
            split=None if elsewhere else "validation", data_dir=elsewhere,
            class_names=tuple(dataset.class_names))
        _check_labels(as_made(data, validation), "validate with")
    if options.use_bbox_info and not dataset.has_boxes:
        raise DataError(f"dataset {data.name!r} has no bounding boxes here",
                        "ImageNet's stand in 'imagenet_2012_bounding_boxes.csv' in '--data-dir'; "
                        "leave '--use-bbox-info' out")
    calls = len(dataset) // plan.combined_batch
    if calls < 1:
        raise UsageError(
            f"one host call takes {plan.combined_batch} images and the dataset has {len(dataset)}",
            "use a smaller '--batch-size', '--gradient-accumulation', '--replicas' or "
            "'--device-iterations'")
    built = make_model(options, data, dataset, registry)
    if options.first_trainable_layer:
        train_from(built.module, options.first_trainable_layer)
    instances.share(built.module.state_dict())
    setup = TrainingSetup(
        loss=Loss(options.label_smoothing), optimizer=optimizer, loss_scaling=scaling.at(0),
        ema_decay=options.ema_decay, tolerate_non_finite=options.skip_non_finite > 0,
        metrics=not options.disable_metrics,
        mix=MixOptions(options.mixup_alpha, options.cutmix_lambda_low, options.cutmix_lambda_high,
                       options.cutmix_disable_prob))
    told += dict.fromkeys((*dataset.notes, *(validation.notes if validation else ())))
    return Prepared(asked, plan, chosen, data, dataset, validation, built, setup, rate, scaling,
                    instances, min(calls, options.iterations or calls),
                    told + _notes(plan, chosen, norm))


def _check_labels(data: DatasetSpec, purpose: str) -> None:
    if data.finite and not data.labelled:
        raise UsageError(f"dataset {data.name!r} has no labels to {purpose}",
                         "'--data image_folder' takes one folder per class")


def _check_shared(options: TrainOptions) -> None:
    if options.skip_bad_samples:
        raise UsageError("'--skip-bad-samples' would move images between instances",
                         "find bad images with 'ipucnn data verify', and leave it out")


_HALF_SIZES = {224: 160, 380: 252}
"""Input sizes of half-resolution training in the old application."""


def half_size(size: int) -> int:
    """Return the size of the smaller images: about 5/7, a multiple of 4."""
    return _HALF_SIZES.get(size, max(8, round(size * 5 / 7 / 4) * 4))


def sized(options: TrainOptions, model: ModelSpec) -> TrainOptions:
    """Return the options with the input size that a half-resolution training has."""
    if not options.half_res_training:
        return options
    return replace(options, input_size=half_size(options.input_size or model.input_size))


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
