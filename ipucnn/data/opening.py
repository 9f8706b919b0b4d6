"""Opens the dataset selected by a command's options."""

from __future__ import annotations

from dataclasses import replace
from typing import Mapping, Optional, Tuple, TypeVar

from ipucnn.core.errors import DataError, IpucnnError, NoSplitError, UsageError
from ipucnn.core.options.composition import PluginOptions
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.parts import DatasetPart, NetworkPart
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data import DatasetRequest, ImageDataset
from ipucnn.data.dataset_checks import opened
from ipucnn.data.formats.recognition import format_of, is_url, read_by
from ipucnn.data.remote.transfer import shown

NetworkT = TypeVar("NetworkT", bound=NetworkPart)


def check_dataset_options(options: DatasetPart, data: DatasetSpec,
                          further: Mapping[str, bool]) -> None:
    """Raise an error for options that do not apply to this dataset, or a missing folder.

    Args:
        options: of the command.
        data: the dataset's record.
        further: other flags, and whether each does not apply.

    Raises:
        UsageError: names all of them.
    """
    if data.needs_data_dir and not options.data_dir:
        raise UsageError(f"dataset {data.name!r} needs a folder",
                         "name it with '--data-dir'; others, some of which need "
                         "none: 'ipucnn list-plugins datasets'")
    meaningless = {
        "--data-dir": bool(options.data_dir) and not data.reads_folder,
        "--dataloader-worker": options.dataloader_worker is not None and data.on_device,
        "--skip-bad-samples": options.skip_bad_samples and data.on_device,
        **further,
    }
    refused = [flag for flag, without_meaning in meaningless.items() if without_meaning]
    if refused:
        flags = ", ".join(f"'{flag}'" for flag in refused)
        why = "makes its images on the device" if data.on_device else "reads no folder"
        raise UsageError(f"{flags} cannot be used with dataset {data.name!r}, which {why}",
                         "leave the option out, or choose another '--data'")


def request_of(network: NetworkPart, data: DatasetPart, input_size: int,
               length: Optional[int] = None) -> DatasetRequest:
    """Return the arguments for the dataset that a command's options describe.

    Args:
        network: options of the network.
        data: options of the dataset.
        input_size: of the network, in pixels.
        length: the number of images, for datasets without an end.
    """
    return DatasetRequest(data_dir=data.data_dir, length=length, seed=data.seed,
                          input_size=input_size, num_classes=network.num_classes)


def open_dataset(data: DatasetSpec, request: DatasetRequest, plugins: PluginOptions,
                 registry: Registry, elsewhere: Optional[str] = None,
                 no_split_hint: str = "") -> ImageDataset:
    """Open a dataset.

    If the folder belongs to another dataset that `data` lists in `also`, or is elsewhere and of
    another format, it is read as that one, with a note.

    Args:
        data: the dataset's record.
        request: the arguments for the dataset.
        plugins: options of the dataset.
        registry: where its target is looked up.
        elsewhere: a folder or URL instead of that of the request.
        no_split_hint: the hint if it does not have the requested split, for commands other than
            trainings.

    Raises:
        DataError: it cannot be found or read, or has no images.
        UsageError: its folder is a URL that it cannot read, or an option is of another format.
    """
    named = data
    if elsewhere:
        named, request = format_of(elsewhere, data, registry), replace(request, data_dir=elsewhere)
    reader = read_by(named, request.data_dir, registry)
    _check_reader(named, reader, plugins)
    try:
        dataset = opened(registry.make_typed(ImageDataset, reader, request,
                                             options=plugins.of("dataset", reader.name)),
                         registry.in_words(reader))
    except NoSplitError as error:
        raise NoSplitError(error.message, no_split_hint or error.hint) from error
    if reader.finite and not len(dataset):
        kind = NoSplitError if request.split else DataError
        raise kind(f"dataset {reader.name!r} has no "
                   + (f"{request.split} images" if request.split else "images"),
                   no_split_hint or "choose other images with '--data-dir' or '--data'")
    usual = usual_record(reader, dataset, registry)
    dataset.recipe, dataset.native_size = usual.recipe, usual.native_size
    if request.data_dir and reader is not data:
        place = shown(request.data_dir) if is_url(request.data_dir) else request.data_dir
        dataset.notes = (f"{place!r} is read as dataset {reader.name!r}", *dataset.notes)
    return dataset


def usual_record(data: DatasetSpec, dataset: ImageDataset, registry: Registry) -> DatasetSpec:
    """Return the record with the usual preprocessing of a dataset's images.

    This is the record of the dataset from which they were converted unchanged, if it exists.

    Args:
        data: the record with which it was opened.
        dataset: the opened dataset.
        registry: where names are looked up.
    """
    if not dataset.made_from:
        return data
    try:
        return registry.get_typed(DatasetSpec, dataset.made_from)
    except IpucnnError:
        return data


def enlarged(dataset: ImageDataset, input_size: int) -> Tuple[str, ...]:
    """Return the note about images that are smaller than the input of the model, if they are."""
    size = dataset.native_size
    if not 0 < size < input_size:
        return ()
    return (f"images of {size} pixels are enlarged to the model's input of {input_size}: "
            f"'--input-size {size}' takes them as they are, where the model can",)


def _check_reader(data: DatasetSpec, reader: DatasetSpec, plugins: PluginOptions) -> None:
    """Raise an error for options of a format other than the folder's."""
    for name in (data.name, *data.also):
        options = plugins.of("dataset", name)
        if options is None or name == reader.name:
            continue
        for item in declared(type(options)):
            if getattr(options, item.name) != item.default:
                raise UsageError(f"'{item.flag}' is an option of dataset {name!r}, and the data "
                                 f"is read as dataset {reader.name!r}",
                                 "leave it out, or name other data with '--data-dir'")


def takes_folder_of(data: DatasetSpec, before: DatasetSpec) -> bool:
    """Return whether a dataset that replaces another one is read from the folder of that one.

    A dataset that reads no folder is not, nor one with a folder of its own, into which it may
    be downloaded.
    """
    return data is before or (data.reads_folder and not data.default_data_dir)


def as_opened(data: DatasetSpec, dataset: ImageDataset) -> DatasetSpec:
    """Return the record of an opened dataset, unlabelled where its files have no labels."""
    return replace(data, labelled=False) if data.labelled and not dataset.class_names else data


def with_classes(network: NetworkT, data: DatasetSpec, dataset: ImageDataset) -> NetworkT:
    """Return the options of the network, with one output per class of an opened labelled dataset.

    A number of classes that the user gave is kept.
    """
    if network.num_classes is None and as_opened(data, dataset).labelled:
        return replace(network, num_classes=len(dataset.class_names))
    return network
