"""The model card and the preprocessing of a network and of a weights file."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ipucnn.core.errors import IpucnnError, PluginError, WeightsError
from ipucnn.core.options.building import build
from ipucnn.core.options.composition import PluginOptions
from ipucnn.core.options.declaration import declared
from ipucnn.core.options.parts import NORMALISATION_PLACES, NetworkPart
from ipucnn.core.preprocessing import Preprocessing, half_size
from ipucnn.core.registry.kinds import KINDS
from ipucnn.core.registry.records import ModelSpec, NormLayerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.targets import import_target
from ipucnn.data.remote.transfer import shown
from ipucnn.models.card import ModelCard
from ipucnn.models.checkpoint_content import CARD
from ipucnn.models.checkpoint_files import best_of
from ipucnn.models.class_names import IMAGENET_CLASSES, imagenet_names
from ipucnn.models.foreign_names import Field, class_names_in, naming_fields
from ipucnn.models.old_checkpoints import (
    OLD_WEIGHTS,
    number_of_outputs,
    old_options,
    translated_options,
)
from ipucnn.models.weights_source import identified_weights, weights_path

_NETWORK = ("normlayer", "input_size", "input_image_padding", "num_classes")


def preprocessing_of(network: NetworkPart, registry: Registry) -> Preprocessing:
    """Return the preprocessing for a network of the registry.

    It is that of the card in the weights file, or else of the record of the published weights, or
    else of the record of the model, or else the usual one for ImageNet models. The last two are
    assumed for a file of another program.

    Args:
        network: the model and its weights, and the input size where it is given.
        registry: where the model is looked up.

    Raises:
        UsageError: an unknown model, or there are no such published weights.
        WeightsError: the card in the weights file is damaged.
    """
    spec = registry.get_typed(ModelSpec, network.model)
    stored = file_card(network.source, registry)
    if stored is not None:
        found = stored.preprocessing
    else:
        published = identified_weights(spec, network.source)
        found = ((published and published.preprocessing) or spec.preprocessing
                 or Preprocessing(input_size=spec.input_size, assumed=True))
        if published is None and network.source != "random":
            found = replace(found, assumed=True)
    size = network.input_size or found.input_size
    spec.check_input_size(size)
    return found.sized(size)


def card_of(network: NetworkPart, plugins: PluginOptions, registry: Registry,
            num_outputs: int) -> ModelCard:
    """Return the card of a network of the registry with `num_outputs` outputs.

    Raises:
        UsageError, WeightsError: see `preprocessing_of`.
    """
    spec = registry.get_typed(ModelSpec, network.model)
    layer = registry.get_typed(NormLayerSpec, network.normlayer)
    others = [kind for kind in KINDS if kind not in ("model", "norm-layer")]
    options = {name: value for name, _, value in plugins.items(without=others)}
    if network.input_image_padding:
        options["input_image_padding"] = True
    card = ModelCard(
        model=registry.name_of(spec), num_outputs=num_outputs, options=options,
        norm_layer=registry.name_of(layer), preprocessing=preprocessing_of(network, registry))
    stored = file_card(network.source, registry)
    if stored is not None and stored.num_outputs == num_outputs:
        return replace(card, class_names=stored.class_names, outputs=stored.outputs,
                       multi_label=stored.multi_label, precision=stored.precision,
                       metrics=stored.metrics)
    if stored is not None:
        return card
    names = names_in_file(network.source, registry, num_outputs) or tuple(
        _published_names(spec, network.source))
    return replace(card, class_names=names) if len(names) == card.classes else card


def assumptions(network: NetworkPart, card: ModelCard, registry: Registry) -> List[str]:
    """Return a note about what is assumed because the weights file does not state it, if any.

    Args:
        network: the model and its weights.
        card: the card that `card_of` has returned.
        registry: where the model is looked up.

    Raises:
        UsageError, WeightsError: see `preprocessing_of`.
    """
    source, spec = network.source, registry.get_typed(ModelSpec, network.model)
    if source == "random" or file_card(source, registry) is not None \
            or identified_weights(spec, source) is not None:
        return []
    named = not card.class_names or names_in_file(source, registry, card.num_outputs)
    missing, assumed = ("no preprocessing", "that") if named else \
        ("neither classes nor preprocessing", "those")
    return [f"'{shown(source)}' states {missing}: {assumed} of model {card.model!r} "
            f"{'is' if named else 'are'} assumed; images are "
            f"{replace(card.preprocessing, assumed=False).summary()}"]


def _published_names(spec: ModelSpec, source: str) -> Sequence[str]:
    """Return the class names of weights; empty for random ones.

    A file that does not name its classes, with as many outputs as the published weights, is
    assumed to have their classes.
    """
    if source == "random" or not spec.weights:
        return ()
    published = identified_weights(spec, source) or spec.weights[0]
    if isinstance(published.classes, str):
        return tuple(import_target(published.classes))
    if published.classes or spec.num_classes != IMAGENET_CLASSES:
        return published.classes
    return imagenet_names()


def file_card(source: str, registry: Registry) -> Optional[ModelCard]:
    """Return the card of a weights file; None for files with weights only.

    For checkpoints of earlier versions without a card, and of the old applications, the card is
    created from the options in the checkpoint.

    Args:
        source: a value of `--weights`.
        registry: where its model is looked up.

    Raises:
        WeightsError: the card in the file is damaged, or a URL names no file.
    """
    path = weights_path(source)
    card = _described(path, registry)[0]
    if card is not None:
        best = best_of(path.parent)
        if best.pop("file", None) == path.name:
            # a checkpoint is written before its validation
            return replace(card, metrics={f"best {name}": value for name, value in best.items()})
    return card


def names_in_file(source: str, registry: Registry,
                  num_outputs: Optional[int] = None) -> Tuple[str, ...]:
    """Return the class names in a weights file of another program; empty without any.

    Args:
        source: a value of `--weights`.
        registry: as in `file_card`.
        num_outputs: number of outputs of the model; None if it is not known.
    """
    path = weights_path(source)
    return class_names_in(_described(path, registry)[1], num_outputs)


Description = Tuple[Optional[ModelCard], List[Field]]


def _described(path: Path, registry: Registry) -> Description:
    """Return the card in a file, and fields of other programs that may contain class names."""
    with suppress(OSError):
        status = path.stat()
        if path.is_file():
            return _read_description(path, (status.st_mtime_ns, status.st_size), registry)
    return None, []


@lru_cache(maxsize=4)
def _read_description(path: Path, _version: Tuple[int, int], registry: Registry) -> Description:
    from ipucnn.models.weights_file import beside_weights

    try:
        content = beside_weights(path)
    except WeightsError:
        return None, []  # reported when the weights are read
    card = card_in(content, path, registry)
    return card, naming_fields(content) if card is None else []


def card_in(content: Mapping[str, Any], path: Path, registry: Registry) -> Optional[ModelCard]:
    """Return the card in the content of a checkpoint, or None.

    Args:
        content: as `read_checkpoint` returns it.
        path: of the file, for messages.
        registry: where its model is looked up.

    Raises:
        WeightsError: the card is damaged.
    """
    if isinstance(content.get(CARD), Mapping):
        try:
            return ModelCard.from_plain(content[CARD])
        except PluginError as error:
            raise WeightsError(f"'{path}': {error.message}", "use another copy of it") from error
    names = content.get("class_names")
    if isinstance(content.get("model_name"), str) and isinstance(content.get("options"), Mapping):
        return _completed(content["model_name"], content["options"],
                          tuple(names) if isinstance(names, (list, tuple)) else (), path,
                          registry)
    written = old_options(content)
    if written is not None:
        from ipucnn.models.options import ModelOptions

        values = translated_options(written, ModelOptions, registry)
        values["num_classes"] = number_of_outputs(content[OLD_WEIGHTS])
        if values.get("model"):
            return _completed(str(values["model"]), values, (), path, registry)
    return None


def _completed(model: str, options: Mapping[str, Any], class_names: Tuple[str, ...], path: Path,
               registry: Registry) -> Optional[ModelCard]:
    """Return the card of a checkpoint that has none; None if its model is unknown here.

    Images were always normalised with ImageNet's mean and standard deviation then, whatever the
    dataset, unless normalisation was switched off.
    """
    from ipucnn.models.options import ModelOptions

    try:
        spec = registry.get_typed(ModelSpec, model)
        values = {name: options[name] for name in _NETWORK if options.get(name) is not None}
        made = build(ModelOptions, {**_owned(options, spec, registry), **values,
                                    "model": model, "weights": "random"}, registry=registry)
    except IpucnnError:
        return None
    outputs = made.network.num_classes or len(class_names) or spec.num_classes
    size = made.network.input_size or spec.input_size
    preprocessing = Preprocessing().sized(
        half_size(size) if options.get("half_res_training") else size)
    if NORMALISATION_PLACES.get(str(options.get("normalization_location"))) == "none":
        preprocessing = preprocessing.without_normalisation()
    return replace(
        card_of(made.network, made.plugins, registry, outputs), preprocessing=preprocessing,
        class_names=class_names if len(class_names) == outputs else (),
        precision=str(options.get("precision", "")), provenance={"weights": str(path)})


def _owned(options: Mapping[str, Any], spec: ModelSpec, registry: Registry) -> Dict[str, Any]:
    """Return the saved options of the model and of its norm layer."""
    specs = [spec, registry.get_typed(NormLayerSpec, str(options.get("normlayer") or "batch"))]
    names = {item.name for record in specs for found in [registry.options_class(record)]
             if found is not None for item in declared(found)}
    return {name: value for name, value in options.items() if name in names}
