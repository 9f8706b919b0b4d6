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

    A third party's model whose name is taken appears under its qualified name.
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
        num_classes: outputs; those of the published network when not given.
        options: the other arguments of `models.build.create_model` (`normlayer`, `norm` ...).

    Returns:
        A module that maps `(n, 3, size, size)` normalised float images to `(n, classes)` logits;
        its module and state-dict names are those of its source library.

    Raises:
        IpucnnError: an unknown name, weights that cannot be fetched or do not fit.
    """
    from ipucnn.models import build as models

    return models.create_model(name, weights=weights, num_classes=num_classes, **options).module


def load_dataset(name: str, data_dir: Optional[str] = None, **request: Any) -> ImageDataset:
    """Return a dataset: images by index, uint8 RGB `(3, height, width)`, with names and labels.

    Args:
        name: a dataset's name.
        data_dir: its folder.
        request: other fields of `ipucnn.data.DatasetRequest` (`input_size`, `length` ...).

    Raises:
        IpucnnError: an unknown name, or data that cannot be found.
    """
    from ipucnn.core.registry.records import DatasetSpec
    from ipucnn.data import DatasetRequest
    from ipucnn.data.formats.recognition import read_by

    spec = read_by(registry().get_typed(DatasetSpec, name), data_dir, registry())
    dataset: ImageDataset = registry().resolve(spec)(DatasetRequest(data_dir=data_dir, **request))
    return dataset


def run(config: Optional[str] = None, **options: Any) -> RunResult:
    """Classify images, or measure how fast that goes: `ipucnn run` in Python.

    Args:
        config: a named profile or YAML file.
        options: options of `ipucnn run` by name, in any of their spellings
            (``model="resnet50", batch_size=16``).

    Returns:
        What was measured; times in seconds and milliseconds, rates in images per second.

    Raises:
        IpucnnError: anything the user can act on.
    """
    from ipucnn.core.options import RunOptions
    from ipucnn.core.options.profiles import resolve
    from ipucnn.inference import bulk

    return bulk.run(resolve(RunOptions, {"config": config, **options}))


def train(config: Optional[str] = None, **options: Any) -> TrainResult:
    """Train a model: `ipucnn train` in Python.

    Args:
        config: a named profile or YAML file.
        options: options of `ipucnn train` by name, in any of their spellings
            (``model="resnet18", data="shapes", epoch=3``).

    Returns:
        What was trained; times in seconds, rates in images per second, accuracies in per cent.

    Raises:
        IpucnnError: anything the user can act on.
    """
    from ipucnn.core.options import TrainOptions
    from ipucnn.core.options.profiles import resolve
    from ipucnn.training.phases import train_all

    return train_all(resolve(TrainOptions, {"config": config, **options}, "train"))


def restore(checkpoint_path: str, **options: Any) -> TrainResult:
    """Continue a training: `ipucnn restore` in Python.

    Args:
        checkpoint_path: a checkpoint, or a folder, whose newest whole checkpoint is taken.
        options: options of `ipucnn train` that replace those of the checkpoint.

    Raises:
        IpucnnError: anything the user can act on.
    """
    from ipucnn.training.restore import restore as restored

    return restored({"checkpoint_path": checkpoint_path, **options})


def validate(checkpoint_path: str, **options: Any) -> List[Validation]:
    """Tell what stored checkpoints score: `ipucnn validate` in Python.

    Args:
        checkpoint_path: a checkpoint, or a folder, all of whose checkpoints are validated.
        options: options of `ipucnn validate`.

    Raises:
        IpucnnError: anything the user can act on.
    """
    from ipucnn.core.options import ValidateOptions
    from ipucnn.core.options.declaration import build
    from ipucnn.training.validate import validate as validated

    return validated(build(ValidateOptions, {"checkpoint_path": checkpoint_path, **options}))


def export(config: Optional[str] = None, **options: Any) -> ExportResult:
    """Write a model as an ONNX file, checked and compared with torch: `ipucnn export` in Python.

    Args:
        config: a named profile or YAML file.
        options: options of `ipucnn export` by name, in any of their spellings
            (``model="resnet50", dynamic_batch=True``).

    Returns:
        The file's path and what is in it; size in bytes.

    Raises:
        IpucnnError: anything the user can act on.
    """
    from ipucnn.core.options import ExportOptions
    from ipucnn.core.options.profiles import resolve
    from ipucnn.onnx.job import export as exported

    return exported(resolve(ExportOptions, {"config": config, **options}, "export"))
