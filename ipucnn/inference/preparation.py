"""The dataset and the model that a command's options name."""

from __future__ import annotations

from dataclasses import replace
from typing import Mapping, Optional, Tuple

import torch  # noqa: TID253

from ipucnn.core.errors import UsageError
from ipucnn.core.options import RunOptions, TrainOptions
from ipucnn.core.options.shared import NetworkOptions
from ipucnn.core.registry.records import DatasetSpec, ModelSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.formats.recognition import is_url, read_by
from ipucnn.data.remote.transfer import shown
from ipucnn.models.build import BuiltModel, create_model
from ipucnn.models.norms import NormOptions


def check_data_options(options: NetworkOptions, data: DatasetSpec,
                       further: Mapping[str, bool]) -> None:
    """Refuse options that this dataset gives no meaning, and a missing folder.

    Args:
        options: of the command.
        data: the dataset's record.
        further: other flags, and whether they are without meaning.

    Raises:
        UsageError: names all of them.
    """
    if data.needs_data_dir and not options.data_dir:
        raise UsageError(f"dataset {data.name!r} needs a folder", "name it with '--data-dir'")
    _check_cache(options)
    meaningless = {
        "--data-dir": bool(options.data_dir) and not data.reads_folder,
        "--dataloader-worker": bool(options.dataloader_worker) and data.on_device,
        "--dataloader-mode": options.dataloader_mode != "threads" and data.on_device,
        "--skip-bad-samples": options.skip_bad_samples and data.on_device,
        **further,
    }
    refused = [flag for flag, without_meaning in meaningless.items() if without_meaning]
    if refused:
        flags = ", ".join(f"'{flag}'" for flag in refused)
        why = ("makes its images on the device" if data.on_device
               else "has no annotations" if data.reads_folder else "reads no folder")
        raise UsageError(f"{flags} cannot be used with dataset {data.name!r}, which {why}",
                         "leave the option out, or choose another '--data'")


def _check_cache(options: NetworkOptions) -> None:
    places = (getattr(options, name, None)
              for name in ("data_dir", "validation_data_dir", "calibration_dir"))
    cached = {"--data-cache-dir": options.data_cache_dir,
              "--data-cache-size": options.data_cache_size}
    given = ", ".join(f"'{flag}'" for flag, value in cached.items() if value is not None)
    if given and not any(place and is_url(place) for place in places):
        raise UsageError(f"{given} is for data behind a URL, and none is named",
                         "leave it out, or name a URL with '--data-dir'")


def make_dataset(options: NetworkOptions, model: ModelSpec, data: DatasetSpec,
                 registry: Registry, length: Optional[int] = None, split: Optional[str] = None,
                 data_dir: Optional[str] = None,
                 class_names: Tuple[str, ...] = (),
                 annotations: Optional[str] = None) -> ImageDataset:
    """Return the dataset.

    Where the folder is one of another dataset that `data` lists in `also`, it is read as that, and
    the dataset's notes say so.

    Args:
        options: of the command.
        model: record of the model that takes the images.
        data: the dataset's record.
        registry: where the dataset's target is looked up.
        length: samples wanted of a dataset that makes its own.
        split: `train`, `validation`, or None for the whole.
        data_dir: another folder than that of the options.
        class_names: what the labels count, where the model decides.
        annotations: file of annotations.

    Raises:
        DataError: it cannot be found or read.
        UsageError: its folder is a URL, and it reads none.
    """
    data_dir = data_dir or options.data_dir
    reader = read_by(data, data_dir, registry)
    dataset: ImageDataset = registry.resolve(reader)(DatasetRequest(
        data_dir=data_dir, input_size=options.input_size or model.input_size,
        length=length, num_classes=options.num_classes, seed=options.seed, split=split,
        class_names=class_names, annotations=annotations, cache_dir=options.data_cache_dir,
        cache_bytes=options.data_cache_size))
    if data_dir and reader is not data:
        place = shown(data_dir) if is_url(data_dir) else data_dir
        dataset.notes = (f"{place!r} is read as dataset {reader.name!r}", *dataset.notes)
    return dataset


def as_made(data: DatasetSpec, dataset: ImageDataset) -> DatasetSpec:
    """Return the record of a dataset with what only its files could tell: whether it has labels."""
    return replace(data, labelled=False) if data.labelled and not dataset.class_names else data


def make_model(options: RunOptions | TrainOptions, data: DatasetSpec, dataset: ImageDataset,
               registry: Registry) -> BuiltModel:
    """Return the model, with as many outputs as the dataset has classes unless it is told.

    Raises:
        UsageError: an unknown name or an option without meaning.
        WeightsError: the weights cannot be had or do not fit.
    """
    weights = options.chosen_weights
    classes = options.num_classes
    fresh = not weights.startswith("pretrained") or isinstance(options, TrainOptions)
    if classes is None and as_made(data, dataset).labelled and fresh:
        classes = len(dataset.class_names)  # a fresh head, or a file trained on such data
    torch.manual_seed(options.seed)
    return create_model(
        options.model, num_classes=classes, weights=weights,
        weights_partial=options.weights_partial, normlayer=options.normlayer,
        norm=NormOptions(options.groupnorm_group_num, options.norm_eps,
                         options.batchnorm_momentum),
        input_padding=options.input_image_padding, model_options=options.model_options,
        input_size=options.input_size, registry=registry)
