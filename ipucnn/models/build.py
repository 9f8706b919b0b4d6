"""Builds and describes models by name."""

from __future__ import annotations

import functools
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Dict, List, Optional, Tuple

import torch
from torch import nn

from ipucnn.core.errors import IpucnnError, PluginError, UsageError
from ipucnn.core.options.building import build
from ipucnn.core.options.composition import CommandOptions, PluginOptions, part
from ipucnn.core.options.parts import NetworkPart
from ipucnn.core.registry.records import ModelSpec, NormLayerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.models.surgery import pad_input_channels, replace_norms, zero_init_residual
from ipucnn.models.tracing import count, usable_splits
from ipucnn.models.weights import WeightsReport, load_weights

DEFAULT_NORM_LAYER = "batch"


@dataclass(frozen=True)
class ModelOptions(CommandOptions):
    """The options of a model that is built by name."""

    network: NetworkPart = part(NetworkPart)

    kinds: ClassVar[Tuple[str, ...]] = ("model", "norm-layer")


@dataclass(frozen=True)
class BuiltModel:
    """A model with its metadata.

    Attributes:
        module: maps `(n, 3, input_size, input_size)` to logits `(n, num_classes)`.
        spec: its record.
        weights: the source of its weights.
        input_size: height and width of its images in pixels.
        num_classes: number of outputs.
        class_names: names of the outputs, if the model defines them.
    """

    module: nn.Module
    spec: ModelSpec
    weights: WeightsReport
    input_size: int
    num_classes: int
    class_names: Tuple[str, ...] = ()


def create_model(name: str, *, registry: Optional[Registry] = None,
                 **options: Any) -> BuiltModel:
    """Build a model by name; the keyword interface of `build_model`.

    Args:
        name: a model's name, alias or `distribution:name`.
        registry: where names are looked up; this process's when not given.
        options: options of `NetworkPart` and those of the model and its norm layer, by any of
            their spellings (``weights="random"``, ``groupnorm_group_num=16``).

    Raises:
        UsageError: an unknown name, or an option that the model or the norm layer lacks.
        WeightsError: the weights cannot be obtained or do not match.
    """
    registry = registry or current_registry()
    made = build(ModelOptions, {"model": name, **options}, registry=registry)
    return build_model(made.network, made.plugins, registry)


def build_model(network: NetworkPart, plugins: PluginOptions, registry: Registry) -> BuiltModel:
    """Build a model: network, norm layers, residual zero-init, weights, input padding.

    Random weights come from torch's global generator.

    Args:
        network: which one, and how it is built.
        plugins: options of the model and of the norm layer.
        registry: where names are looked up.

    Raises:
        UsageError: an unknown name, or a model that cannot be built so.
        WeightsError: the weights cannot be obtained or do not match.
    """
    spec = registry.get_typed(ModelSpec, network.model)
    classes = spec.num_classes if network.num_classes is None else network.num_classes
    if classes < 1:
        raise UsageError(f"a model cannot have {classes} classes", "the smallest number is 1")
    model = _build(spec, classes, plugins.of("model", spec.name), registry)
    _replace_norms(model, spec, network.normlayer, plugins, registry)
    if spec.zero_init_residual:
        zero_init_residual(model)
    report = load_weights(model, spec, network.source, network.weights_partial)
    if network.input_image_padding:
        pad_input_channels(model)
    return BuiltModel(model, spec, report, network.input_size or spec.input_size, classes)


def describe_model(name: str, registry: Optional[Registry] = None) -> Dict[str, Any]:
    """Return what `ipucnn show model` prints, as plain types.

    `multiply_adds` is for one image, and None for a model that cannot be followed.

    Raises:
        UsageError: an unknown name.
    """
    registry = registry or current_registry()
    spec = registry.get_typed(ModelSpec, name)
    model = outline(spec, registry)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    multiply_adds: Optional[int] = None
    with suppress(UsageError):
        multiply_adds = count(model, spec.input_size)[1]
    return {
        "name": spec.name, "summary": spec.summary, "aliases": list(spec.aliases),
        "provider": registry.provider_of(spec).label, "family": spec.family,
        "source": spec.source, "input_size": spec.input_size, "num_classes": spec.num_classes,
        "parameters": parameters, "multiply_adds": multiply_adds,
        "weights": [asdict(published) for published in spec.weights],
    }


def model_splits(name: str, registry: Optional[Registry] = None) -> List[str]:
    """Return the modules that can begin a pipeline stage, in order of execution.

    Raises:
        UsageError: an unknown name.
    """
    registry = registry or current_registry()
    spec = registry.get_typed(ModelSpec, name)
    return usable_splits(outline(spec, registry), spec.input_size)


def outline(spec: ModelSpec, registry: Registry, options: Any = None) -> nn.Module:
    """Return a model without weights where it allows that, else with random ones.

    Args:
        spec: its record.
        registry: where its target is looked up.
        options: an instance of its options class; the defaults when None.
    """
    try:
        with torch.device("meta"):
            return _build(spec, spec.num_classes, options, registry)
    except (PluginError, RuntimeError, NotImplementedError):
        return _build(spec, spec.num_classes, options, registry)


def _build(spec: ModelSpec, num_classes: int, options: Any, registry: Registry) -> nn.Module:
    try:
        model = registry.make(spec, num_classes=num_classes, options=options)
    except IpucnnError:
        raise
    except Exception as error:
        provider = registry.provider_of(spec)
        if provider.builtin or registry.settings.strict:
            raise
        raise PluginError(f"model {spec.name!r} of {provider.label} cannot be built: "
                          f"{type(error).__name__}: {error}", "report it to its author") from error
    if not isinstance(model, nn.Module):
        raise PluginError(f"the target of model {spec.name!r} returned {model!r}, expected a "
                          "torch module")
    return model


def _replace_norms(model: nn.Module, spec: ModelSpec, normlayer: str, plugins: PluginOptions,
                   registry: Registry) -> None:
    layer = registry.get_typed(NormLayerSpec, normlayer)
    options = plugins.of("norm-layer", layer.name)
    replaced = replace_norms(model, functools.partial(registry.make, layer, options=options))
    given = options is not None and options != type(options)()
    if not replaced and (layer.name != DEFAULT_NORM_LAYER or given):
        raise UsageError(f"model {spec.name!r} has no batch norm that norm layer {layer.name!r} "
                         "could replace", "leave the norm layer's options out")
