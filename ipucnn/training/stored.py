"""The model in a checkpoint of ours or of the old applications."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.training_session import StateDict
from ipucnn.training.checkpoints import (
    FORMAT,
    Checkpoint,
    CheckpointError,
    Position,
    read_content,
    save,
)


@dataclass(frozen=True)
class StoredModel:
    """A model in a checkpoint of ours or of the old applications.

    Attributes:
        name, dataset: canonical names of the model and its data.
        epoch: epochs it was trained for, the one under way included.
        weights: by the model's own names, float32.
        ema: those of the moving average, if there is one.
        options: of its training, as far as they are ours.
        class_names: what the outputs mean; empty in old files.
        old: whether an old application wrote it.
    """

    name: str
    dataset: str
    epoch: int
    weights: StateDict
    ema: Optional[StateDict]
    options: Dict[str, Any]
    class_names: Tuple[str, ...]
    old: bool = False


def load_stored(path: Path) -> StoredModel:
    """Read the model in a checkpoint, of ours or of the old applications.

    Raises:
        CheckpointError: it is missing, damaged or no checkpoint.
    """
    content = read_content(path)
    if content.get("format") == FORMAT:
        position = content["position"]
        return StoredModel(
            content["model_name"], content["dataset"],
            position["epoch"] + (1 if position["call"] else 0), content["model"],
            content["ema"], content["options"],
            tuple(content["class_names"]))
    weights = content.get("model_state_dict")
    options = content.get("opts") or content.get("args")
    if not isinstance(weights, dict) or not isinstance(options, Mapping):
        raise CheckpointError(f"'{path}' is no checkpoint",
                              "'ipucnn run --weights' takes files of weights alone")
    values = _translated(options)
    name, dataset = values.get("model"), values.get("data")
    if not name or not dataset:
        raise CheckpointError(f"'{path}' does not say of which model and dataset it is",
                              "'ipucnn run --weights' takes files of weights alone")
    return StoredModel(str(name), str(dataset), int(content.get("epoch", 0)),
                       _plain(weights, values), None, values, (), old=True)


def replace_weights(path: Path, weights: StateDict) -> None:
    """Replace the weights in a checkpoint of ours.

    Raises:
        CheckpointError: it cannot be read or written.
    """
    stored, content = load_stored(path), read_content(path)
    save(Checkpoint(
        stored.name, stored.dataset, Position(**content["position"]),
        {name: value.detach().clone() for name, value in weights.items()}, content["ema"],
        content["session"], content["progress"], stored.options, stored.class_names,
        content["versions"]), path.parent, path.name)


def _plain(weights: StateDict, values: Mapping[str, Any]) -> StateDict:
    """Return an old application's weights in float32, by the model's own names."""
    from ipucnn.core.options import TrainOptions
    from ipucnn.core.options.declaration import build
    from ipucnn.models.build import create_model
    from ipucnn.models.weights import unwrapped

    options = build(TrainOptions, values)
    module = create_model(options.model, weights="random", normlayer=options.normlayer,
                          input_padding=options.input_image_padding,
                          model_options=options.model_options).module
    return {name: value.float() if value.is_floating_point() else value
            for name, value in unwrapped(weights, module).items()}


def _translated(options: Mapping[str, Any]) -> Dict[str, Any]:
    """Return an old application's options by our names, as far as they are ours and valid."""
    from ipucnn.core.options import TrainOptions
    from ipucnn.core.options.declaration import lookup

    values: Dict[str, Any] = {}
    for spelling, value in options.items():
        found = lookup(TrainOptions, str(spelling))
        if found is None or found.option.backend_option or found.option.switch \
                or found.name.startswith("checkpoint"):
            continue
        with suppress(UsageError):
            values[found.name] = found.coerce(value)
    return values
