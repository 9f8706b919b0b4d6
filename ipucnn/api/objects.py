"""Models and datasets as Python objects: by name, or from files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Sequence

from ipucnn.api.arguments import path_of, whole_number
from ipucnn.api.modes import ordinary_modes
from ipucnn.api.signatures import PathLike, takes_options
from ipucnn.core.errors import DataError, UnknownNameError, UsageError
from ipucnn.core.files import expanded_path
from ipucnn.core.names import brief, did_you_mean
from ipucnn.core.options.composition import CommandOptions, common_option
from ipucnn.core.options.parts import names_own
from ipucnn.core.registry.registry import State, registry
from ipucnn.data.formats.convert_options import SPLITS
from ipucnn.data.remote.stores import is_store
from ipucnn.inference.options import RunOptions
from ipucnn.models.options import ModelOptions

if TYPE_CHECKING:
    from torch import nn

    from ipucnn.api.loaded_model import LoadedModel
    from ipucnn.data import ImageDataset


_OF_RUNS = ("data", "data_dir", "synthetic", "instances", "predictions", "top_k", "result",
            "report", "progress", "iterations", "warmup", "time_limit", "onnx", "log_path",
            "hide_output", "match_classes", "calibration_samples", "calibration_dir",
            "compile_only", "tune")
"""Options of runs that do not apply to a loaded model."""


class _DatasetOptions(CommandOptions):
    """The options of datasets."""

    kinds = ("dataset",)


def list_models(pattern: str = "*") -> List[str]:
    """Return the names of the usable models that match a shell wildcard (``"resnet*"``).

    A third-party model whose name is already in use appears under its qualified name.
    """
    if not isinstance(pattern, str):
        raise UsageError(f"option 'pattern': {brief(pattern)} is not text")
    names = []
    for row in registry().rows("model", pattern):
        if row.state is State.OK:
            names.append(row.name)
        elif row.state is State.CONFLICT:
            names.append(f"{row.provider.distribution}:{row.name}")
    return names


@takes_options(ModelOptions, without=("model",))
def create_model(name: str, weights: PathLike = "pretrained", num_classes: Optional[int] = None,
                 **options: Any) -> nn.Module:
    """Return a model ready for inference or training.

    Args:
        name: name or alias of a model, or ``distribution:name``.
        weights: ``"pretrained"``, ``"pretrained:TAG"``, ``"random"`` or a file.
        num_classes: number of outputs; that of the published network when not given.
        options: further options of models by name, including those of the model and of its norm
            layer (``normlayer="group", groupnorm_group_num=16``).

    Returns:
        A module that maps `(n, 3, size, size)` normalised float images to `(n, classes)` logits;
        its module and state-dict names are those of its source library.

    Raises:
        IpucnnError: an unknown name, weights that cannot be fetched or do not fit.
    """
    from ipucnn.models.build import create_model as build_by_name

    if "model" in options:
        raise UsageError(f"option 'model' and the name {name!r} both name the model",
                         "leave the option out")
    if num_classes is not None:
        options["num_classes"] = num_classes
    with ordinary_modes():
        built: nn.Module = build_by_name(name, weights=weights, **options).module
    return built


@takes_options(RunOptions, without=_OF_RUNS)
def load(source: PathLike, **options: Any) -> LoadedModel:
    """Return a model that classifies images: ``ipucnn.load("trained.pt").predict("photo.jpg")``.

    Its predictions are those of `ipucnn.run` with the same options.

    Args:
        source: a checkpoint; a folder of checkpoints, of which the best one, or else the newest, is
            used; an ONNX file; a weights file (add ``model="resnet50"`` if the file does not name
            its model); or the name of a model, with its published weights. A name of a built-in
            model takes precedence over a file of the same name.
        options: options of `ipucnn run` by name, such as `backend`, `precision` and `batch_size`.

    Raises:
        DataError: there is no such file, or nothing in the folder.
        IpucnnError: an unknown name, or a file that cannot be used.
    """
    from ipucnn.api.loaded_model import LoadedModel
    from ipucnn.core.options.profiles import resolve
    from ipucnn.inference.answering import Answering

    for spelling in options:
        item = common_option(RunOptions, spelling)
        if spelling in ("images", "json") or (item is not None and item.name in _OF_RUNS):
            raise UsageError(f"option {spelling!r} applies to runs, not to a loaded model",
                             "leave it out, or call 'ipucnn.run'")
    located = _located(path_of("source", source), options, isinstance(source, str))
    made = resolve(RunOptions, located)
    if made.execution.precision == "int8":
        raise UsageError("a loaded model is not quantised: 8-bit integers need images to calibrate",
                         "use 'ipucnn.run' with precision='int8'")
    with ordinary_modes():
        return LoadedModel(Answering(_found_anywhere(made), registry()))


def _found_anywhere(options: RunOptions) -> RunOptions:
    """Return options whose model is found from any working folder, also by other processes."""
    weights, onnx = options.network.source, options.network.onnx
    if onnx:
        return options.with_values(onnx=os.path.abspath(onnx))
    if not names_own(weights) or not os.path.isfile(weights):
        return options
    return options.with_values(weights=os.path.abspath(weights))


def _located(source: str, options: Dict[str, Any], name: bool) -> Dict[str, Any]:
    """Return the options with those that name the model.

    Args:
        source: the path or the name.
        options: as given.
        name: a built-in model of this name comes before a file.

    Raises:
        DataError: there is no such file, or nothing in the folder.
        UnknownNameError: no model and no file has the name.
        UsageError: other weights are named, or the model is not.
    """
    path = expanded_path(source)
    if name and "model" not in options and source in registry().names("model"):
        return {"weights": "pretrained", **options, "model": source}
    _check_weights(source, options)
    if is_store(source):
        return {**options, "weights": source}
    if path.is_dir():
        networks = sorted(file for file in path.rglob("*") if file.suffix.lower() == ".onnx")
        if networks and not any(path.glob("*.pt")):
            if len(networks) > 1:
                raise UsageError(f"there are {len(networks)} ONNX files in {source!r}: "
                                 + ", ".join(str(file.relative_to(path)) for file in networks[:5]),
                                 "name one of them")
            path = networks[0]
    if path.suffix.lower() == ".onnx":
        return {**options, "onnx": str(path)}
    if path.exists():
        if path.is_file() and "model" not in options:
            from ipucnn.models.weights_card import file_card

            if file_card(str(path), registry()) is None:
                raise UsageError(f"{source!r} does not state which model its weights are of",
                                 "name it: ipucnn.load(FILE, model='resnet50')")
        return {**options, "weights": str(path)}
    if "model" in options:
        raise DataError(f"there is no weights file {source!r}", "check its name")
    try:
        registry().get("model", source)
    except UnknownNameError as error:
        if os.sep not in source and not path.suffix:
            raise UnknownNameError(f"{error.message}, and no file or folder of that name",
                                   error.hint) from None
        close = did_you_mean(source, registry().names("model"))
        raise DataError(f"there is no file or folder {source!r}, and no model of that name",
                        close or "'ipucnn.list_models()' lists the models") from None
    return {"weights": "pretrained", **options, "model": source}


def _check_weights(source: str, options: Dict[str, Any]) -> None:
    if not is_store(source) and not expanded_path(source).exists():
        return  # a name of a model
    for spelling, value in options.items():
        item = common_option(RunOptions, spelling)
        if item is not None and item.name in ("weights", "random_weights") and value:
            raise UsageError(f"option {spelling!r} contradicts the weights in {source!r}",
                             "leave it out, or name a model instead of the file")


@takes_options(_DatasetOptions)
def load_dataset(  # noqa: PLR0913 - the fields of a request
        name: str, data_dir: Optional[PathLike] = None, *, input_size: int = 224,
        num_classes: Optional[int] = None, length: Optional[int] = None, seed: int = 0,
        split: Optional[str] = None, class_names: Sequence[str] = (), hold_out: bool = False,
        **options: Any) -> ImageDataset:
    """Return a dataset: images by index, uint8 RGB `(3, height, width)`, with names and labels.

    ``image, label = dataset[0]`` is an image, whose `dataset[0].name` and `label_name` are text;
    ``dataset[-10:]`` is a dataset of the last ten.

    Args:
        name: a dataset's name.
        data_dir: its folder.
        input_size: height and width in pixels of images that are generated.
        num_classes: number of outputs of the model; None for the number of classes of the dataset.
        length: number of samples of a generated dataset; None for its default.
        seed: seed of generated images, and of `hold_out`.
        split: `train`, `validation`, or None for the split that evaluates the whole dataset.
        class_names: classes in the order of the labels; those of the dataset when empty.
        hold_out: whether to divide a dataset without validation images: the split "validation" is a
            part of its images, and "train" the remainder.
        options: the dataset's own options.

    Raises:
        IpucnnError: an unknown name or option, or data that cannot be found.
    """
    from ipucnn.core.options.assignment import owned_by
    from ipucnn.core.registry.records import DatasetSpec
    from ipucnn.data import DatasetRequest
    from ipucnn.data.opening import open_dataset

    if split not in (None, *SPLITS):
        raise UsageError(f"option 'split' is {split!r}",
                         "values: " + ", ".join(map(repr, SPLITS)) + ", or None")
    if isinstance(class_names, str) or not isinstance(class_names, Iterable):
        raise UsageError(f"option 'class_names' is {brief(class_names)}", "it is a list of names")
    used = registry()
    spec = used.get_typed(DatasetSpec, str(name))
    request = DatasetRequest(
        None if data_dir is None else path_of("data_dir", data_dir),
        whole_number("input_size", input_size, 1),
        None if num_classes is None else whole_number("num_classes", num_classes, 1),
        None if length is None else whole_number("length", length, 0),
        whole_number("seed", seed, 0), split, tuple(class_names), hold_out)
    return open_dataset(spec, request, owned_by("dataset", spec, options, used), used)
