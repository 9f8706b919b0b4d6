"""The network of a training, and how its images are prepared."""

from __future__ import annotations

from dataclasses import replace
from typing import List, Optional, Sequence, Tuple

from ipucnn.core.names import listed
from ipucnn.core.options.parts import NetworkPart
from ipucnn.core.preprocessing import Preprocessing, half_size
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.data import ImageDataset
from ipucnn.data.opening import with_classes
from ipucnn.models.build import build_model, seeded
from ipucnn.models.built import BuiltModel
from ipucnn.models.card import ModelCard
from ipucnn.models.class_names import known_outputs
from ipucnn.models.memory_checks import MANY_OUTPUTS
from ipucnn.models.optimisation import state_size
from ipucnn.models.weights_card import file_card, preprocessing_of
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.rates import optimizer_choice


def preprocessing_for(options: TrainOptions, data: DatasetSpec, registry: Registry,
                      restored: Optional[ModelCard]) -> Preprocessing:
    """Return the preprocessing: that of the initial weights.

    With random weights, that of the dataset, if it has one.
    """
    network = options.network
    if restored is not None:
        return restored.preprocessing.sized(
            network.input_size or restored.preprocessing.input_size)
    network.check_weights()
    found = preprocessing_of(network, registry)
    return usual(options, data, found)


def usual(options: TrainOptions, data: DatasetSpec, found: Preprocessing) -> Preprocessing:
    """Return the preprocessing for the weights of `found`, or for random weights."""
    if options.network.source == "random" and data.preprocessing is not None:
        found = data.preprocessing.sized(found.input_size)
    if options.dataset.input[0] == "none":
        found = found.without_normalisation()
    return replace(found, assumed=False)


def _copies(options: TrainOptions, network: NetworkPart, registry: Registry) -> int:
    """Return the number of values per weight of a large model: weight, gradient, state, average."""
    if (network.num_classes or 0) <= MANY_OUTPUTS or options.fine_tuning.frozen_module \
            or options.optimisation.first_trainable_layer:
        return 1
    return 2 + state_size(optimizer_choice(options, registry).build) + bool(
        options.optimisation.ema_decay)


def network_for(options: TrainOptions, data: DatasetSpec, dataset: ImageDataset, registry: Registry,
                restored: Optional[ModelCard], notes: List[str]) -> BuiltModel:
    """Return the model, with one output per class of the dataset by default; adds to `notes`.

    Raises:
        UsageError: an unknown name or an option that does not apply.
        WeightsError: the weights cannot be obtained or do not match.
    """
    network = options.network
    if restored is not None:
        network = replace(network, weights="random", num_classes=restored.num_outputs)
        with seeded(options.dataset.seed):
            built = build_model(network, options.plugins, registry,
                                copies=_copies(options, network, registry))
        # the names of a card depend on the plugins that were loaded when it was written
        return replace(built, card=replace(restored, model=built.card.model,
                                           norm_layer=built.card.norm_layer))
    network, names = with_classes(network, data, dataset), tuple(dataset.class_names)
    outputs = _outputs(network, names, registry)
    with seeded(options.dataset.seed):
        built = build_model(network, options.plugins, registry, outputs,
                            _copies(options, network, registry))
    if outputs is not None:
        notes.append(_on_outputs(names, outputs))
    card = built.card
    if len(names) == card.classes and (
            not card.class_names or None in known_outputs(names, card.class_names, card.classes)):
        return built.with_card(class_names=names)
    return built


def _outputs(network: NetworkPart, names: Sequence[str],
             registry: Registry) -> Optional[Tuple[Optional[int], ...]]:
    """Return the output of the weights file for each class; None if it has the same classes.

    Also None if the file contains no class names, or if the user specifies how it is loaded.
    """
    card = file_card(network.source, registry)
    if card is None or not card.class_names or card.num_outputs != len(card.class_names) \
            or network.weights_partial or network.num_classes != len(names):
        return None
    outputs = known_outputs(names, card.class_names, card.classes)
    same = None not in outputs and len(outputs) == card.num_outputs
    return None if same else outputs


def _on_outputs(names: Sequence[str], outputs: Sequence[Optional[int]]) -> str:
    new = [name for name, output in zip(names, outputs) if output is None]
    if len(new) == len(names):
        return "the weights have none of the classes: all outputs start from random weights"
    return "the outputs of classes that the weights have are kept" + (
        f", those of others start from random weights: {listed(new)}" if new else "")


def sized(options: TrainOptions, registry: Registry) -> TrainOptions:
    """Return the options with the input size of half-resolution training."""
    if not options.half_resolution.half_res_training:
        return options
    return options.with_values(
        input_size=half_size(preprocessing_of(options.network, registry).input_size))
