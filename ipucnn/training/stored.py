"""The model in a checkpoint of ours or of the old applications."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.training_session import StateDict
from ipucnn.core.names import key
from ipucnn.core.options.building import build
from ipucnn.core.options.composition import common_option
from ipucnn.core.options.declaration import spellings
from ipucnn.core.options.owners import builtin_owners
from ipucnn.core.registry.registry import Registry, registry
from ipucnn.models.build import BuiltModel, build_model
from ipucnn.training.checkpoints import (
    FORMAT,
    Checkpoint,
    CheckpointError,
    Position,
    read_content,
    save,
)
from ipucnn.training.options import TrainOptions


@dataclass(frozen=True)
class StoredModel:
    """A model in a checkpoint of ours or of the old applications.

    Attributes:
        name, dataset: canonical names of the model and its data.
        epoch: number of epochs it was trained for, including the current one.
        weights: by the model's own names, float32.
        ema: those of the moving average, if there is one.
        options: of its training, as far as ipucnn has them.
        class_names: names of the outputs; empty in old files.
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
    """Read the model in a checkpoint of ipucnn or of the old applications.

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
    """Replace the weights in a checkpoint of ipucnn.

    Raises:
        CheckpointError: it cannot be read or written.
    """
    stored, content = load_stored(path), read_content(path)
    save(Checkpoint(
        stored.name, stored.dataset, Position(**content["position"]),
        {name: value.detach().clone() for name, value in weights.items()}, content["ema"],
        content["session"], content["progress"], stored.options, stored.class_names,
        content["versions"]), path.parent, path.name)


def options_of(stored: StoredModel, registry: Registry, **values: Any) -> TrainOptions:
    """Return the options of a stored training, for its model with random weights.

    Args:
        stored: the model.
        registry: where names are looked up.
        **values: options that replace those of the training, by flat name.
    """
    return build(TrainOptions, {
        "data": stored.dataset, **stored.options, "model": stored.name, "weights": "random",
        "checkpoint_save_steps": None, "checkpoint_save_minutes": None}, values,
        registry=registry)


def build_stored(stored: StoredModel, registry: Registry) -> BuiltModel:
    """Return the network of a stored model, without loading its weights."""
    options = options_of(stored, registry)
    classes = options.network.num_classes or len(stored.class_names) or None
    return build_model(replace(options.network, num_classes=classes), options.plugins, registry)


def _plain(weights: StateDict, values: Mapping[str, Any]) -> StateDict:
    """Return an old application's weights in float32, by the model's own names."""
    from ipucnn.models.weights import unwrapped

    used = registry()
    options = build(TrainOptions, values, {"weights": "random"}, registry=used)
    module = build_model(options.network, options.plugins, used).module
    return {name: value.float() if value.is_floating_point() else value
            for name, value in unwrapped(weights, module).items()}


def _translated(options: Mapping[str, Any]) -> Dict[str, Any]:
    """Return an old application's options by ipucnn's names, if they exist and are valid."""
    kinds = ("model", "norm-layer", "optimizer", "lr-schedule", "loss")
    plugins = {spelling: item for owner in builtin_owners(kinds, registry())
               for spelling, item in spellings(owner.options).items()}
    values: Dict[str, Any] = {}
    for spelling, value in options.items():
        found = common_option(TrainOptions, str(spelling)) or plugins.get(key(str(spelling)))
        if found is None or found.option.feature or found.option.switch \
                or found.name.startswith("checkpoint"):
            continue
        with suppress(UsageError):
            values[found.name] = found.coerce(value)
    return values
