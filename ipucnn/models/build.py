"""Builds and describes models by name."""

from __future__ import annotations

import functools
import inspect
import threading
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Any, Dict, Iterator, List, Optional, Sequence, Set

import torch
from torch import nn

from ipucnn.core.errors import IpucnnError, PluginError, UsageError
from ipucnn.core.machine import uses_openmp
from ipucnn.core.options.building import build
from ipucnn.core.options.composition import PluginOptions
from ipucnn.core.options.parts import NetworkPart
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.records import ModelSpec, NormLayerSpec, PublishedWeights
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.models.built import BuiltModel
from ipucnn.models.memory_checks import MANY_OUTPUTS, check_weights
from ipucnn.models.norms import NormSite
from ipucnn.models.options import ModelOptions
from ipucnn.models.surgery import pad_input_channels, replace_norms, zero_init_residual
from ipucnn.models.target_checks import check_model, check_norm
from ipucnn.models.tracing import count, usable_splits
from ipucnn.models.weights import load_by_output, load_weights
from ipucnn.models.weights_card import card_of, preprocessing_of

uses_openmp(functools.partial(torch.set_num_threads, 1))

DEFAULT_NORM_LAYER = "batch"

_SEEDED = threading.RLock()
"""Held while random weights are drawn or the default type is another one: torch's generator and
default are shared by all threads."""


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generator of random weights; afterwards, it continues as if it were not used."""
    with _SEEDED, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # without those of devices, which are not forked
        yield


@contextmanager
def single_precision() -> Iterator[None]:
    """Create tensors in float32, whatever the default type of the program."""
    if torch.get_default_dtype() is torch.float32:
        yield
        return
    with _SEEDED:  # the default is that of all threads
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


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


def build_model(network: NetworkPart, plugins: PluginOptions, registry: Registry,
                outputs: Optional[Sequence[Optional[int]]] = None,
                copies: int = 1) -> BuiltModel:
    """Build a model: network, norm layers, residual zero-init, weights, input padding.

    Random weights come from torch's global generator.

    Args:
        network: options of the network.
        plugins: options of the model and of the norm layer.
        registry: where names are looked up.
        outputs: the output of the weights file for each output of the model, where they differ;
            None keeps random weights.
        copies: number of copies of its weights in memory; see `memory_checks.check_weights`.

    Raises:
        UsageError: an unknown name, or a model that cannot be built with these options or in the
            available memory.
        WeightsError: the weights cannot be obtained or do not match.
    """
    spec = registry.get_typed(ModelSpec, network.model)
    classes = spec.num_classes if network.num_classes is None else network.num_classes
    if classes < 1:
        raise UsageError(f"a model cannot have {classes} classes", "the smallest number is 1")
    if network.input_size is not None:
        spec.check_input_size(network.input_size)
    size = preprocessing_of(network, registry).input_size
    own = plugins.of("model", spec.name)
    if classes > MANY_OUTPUTS or own is not None:  # sizes of third-party models are not limited
        check_weights(outline(spec, registry, own, classes, size), spec.name, classes, copies)
    model = _build(spec, classes, own, registry, size)
    _replace_norms(model, spec, network.normlayer, plugins, registry)
    if spec.zero_init_residual:
        zero_init_residual(model)
    if outputs is None:
        report = load_weights(model, spec, network.source, network.weights_partial,
                              network.num_classes, network.ema)
    else:
        report = load_by_output(model, spec, network.source, outputs, network.ema)
    if network.input_image_padding:
        pad_input_channels(model)
    card = card_of(network, plugins, registry, classes)
    if report.new_head:  # the meaning of its outputs is not known
        card = replace(card, class_names=())
    provenance = {"weights": report.source, "sha256": report.sha256, "tag": report.tag}
    return BuiltModel(model, spec, report, replace(card, provenance=provenance))


def describe_model(name: str, registry: Optional[Registry] = None) -> Dict[str, Any]:
    """Return what `ipucnn show model` prints, as plain types.

    `multiply_adds` is for one image, and None for a model that cannot be traced.

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
        "preprocessing": (spec.preprocessing or Preprocessing(
            input_size=spec.input_size, assumed=True)).as_plain(),
        "weights": [_weights(published) for published in spec.weights],
    }


def _weights(published: PublishedWeights) -> Dict[str, Any]:
    """Return published weights as plain types."""
    plain = {**asdict(published), "classes": list(published.classes)
             if isinstance(published.classes, tuple) else published.classes}
    if published.preprocessing is not None:
        plain["preprocessing"] = published.preprocessing.as_plain()
    return plain


def model_splits(name: str, registry: Optional[Registry] = None) -> List[str]:
    """Return the modules that can begin a pipeline stage, in order of execution.

    Raises:
        UsageError: an unknown name.
    """
    registry = registry or current_registry()
    spec = registry.get_typed(ModelSpec, name)
    return usable_splits(outline(spec, registry), spec.input_size)


def outline(spec: ModelSpec, registry: Registry, options: Any = None,
            classes: Optional[int] = None, input_size: Optional[int] = None) -> nn.Module:
    """Return a model without weights if it supports that, else with random weights.

    Args:
        spec: its record.
        registry: where its target is looked up.
        options: an instance of its options class; the defaults when None.
        classes: number of its outputs; that of its record when None.
        input_size: height and width of its images; those of its record when None.
    """
    classes, size = classes or spec.num_classes, input_size or spec.input_size
    try:
        with torch.device("meta"):
            return _build(spec, classes, options, registry, size)
    except (PluginError, RuntimeError, NotImplementedError):
        return _build(spec, classes, options, registry, size)


def _build(spec: ModelSpec, num_classes: int, options: Any, registry: Registry,
           input_size: int) -> nn.Module:
    try:
        parameter = inspect.signature(registry.resolve(spec)).parameters.get("input_size")
        sized = {"input_size": input_size} if parameter and parameter.default is None else {}
        with single_precision():
            model = registry.make_typed(nn.Module, spec, num_classes=num_classes, options=options,
                                        **sized)
    except IpucnnError:
        raise
    except Exception as error:
        provider = registry.provider_of(spec)
        if provider.builtin or registry.settings.strict:
            raise
        raise PluginError(f"{registry.in_words(spec)} cannot be built: "
                          f"{type(error).__name__}: {error}", "report it to its author") from error
    if torch.empty(0).device.type != "meta":  # an outline has no values
        check_model(model, registry.in_words(spec), num_classes, input_size,
                    not registry.provider_of(spec).builtin)
    return model


def _replace_norms(model: nn.Module, spec: ModelSpec, normlayer: str, plugins: PluginOptions,
                   registry: Registry) -> None:
    layer = registry.get_typed(NormLayerSpec, normlayer)
    options = plugins.of("norm-layer", layer.name)
    seen: Set[int] = set()

    def made(site: NormSite) -> nn.Module:
        found = registry.make_typed(nn.Module, layer, site, options=options)
        if not registry.provider_of(layer).builtin:
            check_norm(found, site, registry.in_words(layer))
            if id(found) in seen:
                raise PluginError(f"{registry.in_words(layer)} returned the layer of another batch "
                                  f"norm for {site.name!r}, so that both share their weights",
                                  "its target must create a layer in each call; report it to its "
                                  "author")
            seen.add(id(found))
        return found

    with single_precision():
        replaced = replace_norms(model, made)
    given = options is not None and options != type(options)()
    if not replaced and (layer.name != DEFAULT_NORM_LAYER or given):
        raise UsageError(f"model {spec.name!r} has no batch norm that norm layer {layer.name!r} "
                         "could replace", "leave the norm layer's options out")
