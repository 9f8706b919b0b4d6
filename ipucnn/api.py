"""The public Python API; the command line is a thin layer over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Optional

from ipucnn.core.registry.registry import State, registry

if TYPE_CHECKING:
    from torch import nn

    from ipucnn.data import ImageDataset
    from ipucnn.inference.run_result import RunResult
    from ipucnn.onnx.job import ExportResult
    from ipucnn.training.train_result import TrainResult
    from ipucnn.training.validation import Validation


def list_models(pattern: str = "*") -> List[str]:
    """Return the names of the usable models that match a shell wildcard (``"resnet*"``).

    A third-party model whose name is already in use appears under its qualified name.
    """
    names = []
    for row in registry().rows("model", pattern):
        if row.state is State.OK:
            names.append(row.name)
        elif row.state is State.CONFLICT:
            names.append(f"{row.provider.distribution}:{row.name}")
    return names


def create_model(name: str, weights: str = "pretrained", num_classes: Optional[int] = None,
                 **options: Any) -> nn.Module:
    """Return a model ready for inference or training.

    Args:
        name: a model's name, alias, or ``distribution:name``.
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

    if num_classes is not None:
        options["num_classes"] = num_classes
    return build_by_name(name, weights=weights, **options).module


def load_dataset(name: str, data_dir: Optional[str] = None, **options: Any) -> ImageDataset:
    """Return a dataset: images by index, uint8 RGB `(3, height, width)`, with names and labels.

    Args:
        name: a dataset's name.
        data_dir: its folder.
        options: fields of `ipucnn.data.DatasetRequest` (`input_size`, `length` ...), and the
            dataset's own options.

    Raises:
        IpucnnError: an unknown name or option, or data that cannot be found.
    """
    import dataclasses

    from ipucnn.core.options.assignment import owned_by
    from ipucnn.core.registry.records import DatasetSpec
    from ipucnn.data import DatasetRequest
    from ipucnn.data.opening import open_dataset

    used = registry()
    spec = used.get_typed(DatasetSpec, name)
    fields = {field.name for field in dataclasses.fields(DatasetRequest)}
    request = DatasetRequest(data_dir=data_dir, **{
        key: value for key, value in options.items() if key in fields})
    plugins = owned_by("dataset", spec, {
        key: value for key, value in options.items() if key not in fields}, used)
    return open_dataset(spec, request, plugins, used)


def run(config: Optional[str] = None, **options: Any) -> RunResult:
    """Classify images or benchmark a model: `ipucnn run` in Python.

    Args:
        config: a named profile or YAML file.
        options: options of `ipucnn run` by name, in any of their spellings
            (``model="resnet50", batch_size=16``).

    Returns:
        The measurements; times in seconds and milliseconds, rates in images per second.

    Raises:
        IpucnnError: anything the user can act on.
    """
    from ipucnn.core.options.profiles import resolve
    from ipucnn.inference import bulk
    from ipucnn.inference.options import RunOptions

    return bulk.run(resolve(RunOptions, {"config": config, **options}))


def train(config: Optional[str] = None, **options: Any) -> TrainResult:
    """Train a model: `ipucnn train` in Python.

    Args:
        config: a named profile or YAML file.
        options: options of `ipucnn train` by name, in any of their spellings
            (``model="resnet18", data="shapes", epoch=3``).

    Returns:
        The training's result; times in seconds, rates in images per second, accuracies in per cent.

    Raises:
        IpucnnError: anything the user can act on.
    """
    from ipucnn.core.options.profiles import resolve
    from ipucnn.training.options import TrainOptions
    from ipucnn.training.phases import train_all

    return train_all(resolve(TrainOptions, {"config": config, **options}, "train"))


def restore(checkpoint_path: str, **options: Any) -> TrainResult:
    """Resume a training: `ipucnn restore` in Python.

    Args:
        checkpoint_path: a checkpoint, or a folder, whose newest complete checkpoint is used.
        options: options of `ipucnn train` that replace those of the checkpoint.

    Raises:
        IpucnnError: anything the user can act on.
    """
    from ipucnn.training.restore import restore as restored

    return restored({"checkpoint_path": checkpoint_path, **options})


def validate(checkpoint_path: str, **options: Any) -> List[Validation]:
    """Evaluate saved checkpoints: `ipucnn validate` in Python.

    Args:
        checkpoint_path: a checkpoint, or a folder, all of whose checkpoints are validated.
        options: options of `ipucnn validate`.

    Raises:
        IpucnnError: anything the user can act on.
    """
    from ipucnn.core.options.building import build
    from ipucnn.training.stored_options import ValidateOptions
    from ipucnn.training.validate import validate as validated

    return validated(build(ValidateOptions, {"checkpoint_path": checkpoint_path, **options}))


def export(config: Optional[str] = None, **options: Any) -> ExportResult:
    """Write a model as an ONNX file, checked and compared with torch: `ipucnn export` in Python.

    Args:
        config: a named profile or YAML file.
        options: options of `ipucnn export` by name, in any of their spellings
            (``model="resnet50", dynamic_batch=True``).

    Returns:
        The file's path and a description of its content; size in bytes.

    Raises:
        IpucnnError: anything the user can act on.
    """
    from ipucnn.core.options.profiles import resolve
    from ipucnn.onnx.job import export as exported
    from ipucnn.onnx.options import ExportOptions

    return exported(resolve(ExportOptions, {"config": config, **options}, "export"))
