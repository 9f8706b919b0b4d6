"""The model in a checkpoint of ipucnn or of the old applications."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Collection, Dict, Mapping, Optional, Sequence, Tuple

from ipucnn.core.execution.training_session import StateDict
from ipucnn.core.names import key
from ipucnn.core.options.building import build
from ipucnn.core.options.declaration import declared
from ipucnn.core.registry.registry import Registry, registry
from ipucnn.models.build import build_model, seeded
from ipucnn.models.built import BuiltModel
from ipucnn.models.card import ModelCard
from ipucnn.models.checkpoint_content import (
    CLASS_COUNTS,
    FORMAT,
    damaged,
    is_state,
    read_content,
)
from ipucnn.models.checkpoint_files import CheckpointError
from ipucnn.models.old_checkpoints import OLD_WEIGHTS, old_options, translated_options
from ipucnn.models.store_paths import shown_path
from ipucnn.models.weights_card import card_in
from ipucnn.training.checkpoints.saved_plugins import Saved, still_valid, without_unusable
from ipucnn.training.options.fine_tuning import FineTuningPart
from ipucnn.training.options.train_options import TrainOptions


@dataclass(frozen=True)
class StoredModel:
    """A model in a checkpoint of ipucnn or of the old applications.

    Attributes:
        name, dataset: canonical names of the model and its data; that of the model with its
            distribution where it is needed.
        epoch: number of epochs it was trained for, including the current one.
        weights: by the model's own names, float32.
        ema: those of the moving average, if there is one.
        options: options of its training that ipucnn supports.
        card: the model card; created from the options if the file has none, or None if the model is
            unknown.
        old: whether it was written by an old application.
        update: number of weight updates it was trained for; 0 if unknown.
        data: the description of its training images; empty when unknown.
        place: its file, for errors.
        versions: of the packages that wrote it; empty when unknown.
    """

    name: str
    dataset: str
    epoch: int
    weights: StateDict
    ema: Optional[StateDict]
    options: Dict[str, Any]
    card: Optional[ModelCard]
    old: bool = False
    update: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def class_counts(self) -> Sequence[int]:
        """Number of training images by output; empty if its loss did not depend on it."""
        counts: Sequence[int] = self.data.get(CLASS_COUNTS, ())
        return counts

    @property
    def class_names(self) -> Tuple[str, ...]:
        """Names of the outputs; empty when unknown."""
        return self.card.class_names if self.card else ()


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
            content["ema"], content["options"], card_in(content, path, registry()),
            update=position["update"], data=content.get("data", {}), place=shown_path(path),
            versions=content.get("versions", {}))
    options = old_options(content)
    if options is None:
        raise CheckpointError(f"'{path}' is not a checkpoint",
                              "'ipucnn run --weights' takes files with weights only")
    values = translated_options(options, TrainOptions, registry())
    name, dataset = values.get("model"), values.get("data")
    if not name or not dataset:
        raise CheckpointError(f"'{path}' does not state its model and dataset",
                              "'ipucnn run --weights' takes files with weights only")
    epoch, weights = content.get("epoch", 0), content[OLD_WEIGHTS]
    numbered = isinstance(epoch, (int, float)) and 0 <= epoch < float("inf")
    if not numbered or not is_state(weights):
        raise damaged(path, "its weights or epoch are not what a training wrote")
    return StoredModel(str(name), str(dataset), int(epoch),
                       _plain(weights, values), None, values, card_in(content, path, registry()),
                       old=True, place=shown_path(path))


def options_of(stored: StoredModel, registry: Registry, chosen: Mapping[str, Any],
               replaceable: Collection[str], unneeded: Collection[str]) -> TrainOptions:
    """Return the options of a stored training, for its model with random weights.

    Args:
        stored: the model.
        registry: where names are looked up.
        chosen: see `without_unusable`.
        replaceable: likewise.
        unneeded: likewise.

    Raises:
        UsageError: a plugin of the training cannot be used, but is needed.
    """
    # options of initial weights contradict random ones
    initial = {item.name: item.default for item in declared(FineTuningPart)}
    saved = {"data": stored.dataset, **stored.options, **initial, "model": _model_of(stored),
             "weights": "random", "checkpoint_save_steps": None,
             "checkpoint_save_minutes": None}
    values = without_unusable(saved, registry, chosen, replaceable, unneeded)
    where = Saved(stored.place, stored.versions, replaceable)
    values = still_valid(values, registry, where, chosen, replaceable, unneeded)
    return build(TrainOptions, values, registry=registry)


def _model_of(stored: StoredModel) -> str:
    """Return the name of the model, with the distribution if the training was given one."""
    given = str(stored.options.get("model"))  # only here in checkpoints of earlier versions
    distribution, _, name = given.rpartition(":")
    return given if distribution and key(name) == key(stored.name) else stored.name


def build_stored(stored: StoredModel, registry: Registry) -> BuiltModel:
    """Return the network of a stored model, without loading its weights."""
    others = [kind for kind in TrainOptions.kinds if kind not in ("model", "norm-layer")]
    options = options_of(stored, registry, {}, (), others)
    card = stored.card
    outputs = card.num_outputs if card else options.network.num_classes
    with seeded(options.dataset.seed):
        built = build_model(replace(options.network, num_classes=outputs), options.plugins,
                            registry)
    return built if card is None else replace(built, card=card)


def _plain(weights: StateDict, values: Mapping[str, Any]) -> StateDict:
    """Return an old application's weights in float32, by the model's own names."""
    from ipucnn.models.weights import unwrapped

    used = registry()
    options = build(TrainOptions, values, {"weights": "random"}, registry=used)
    with seeded(options.dataset.seed):
        module = build_model(options.network, options.plugins, used).module
    return {name: value.float() if value.is_floating_point() else value
            for name, value in unwrapped(weights, module).items()}
