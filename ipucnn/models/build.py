"""Models by name: building them, and saying what they are."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch  # noqa: TID253
from torch import nn  # noqa: TID253

from ipucnn.core.errors import IpucnnError, PluginError, UsageError
from ipucnn.core.registry.records import ModelSpec, NormLayerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.models.norms import NormOptions
from ipucnn.models.surgery import pad_input_channels, replace_norms, zero_init_residual
from ipucnn.models.tracing import count, usable_splits
from ipucnn.models.weights import WeightsReport, load_weights

DEFAULT_NORM_LAYER = "batch"


@dataclass(frozen=True)
class BuiltModel:
    """A model and what is known of it.

    Attributes:
        module: maps `(n, 3, input_size, input_size)` to logits `(n, num_classes)`.
        spec: its record.
        weights: where its weights come from.
        input_size: height and width of its images in pixels.
        num_classes: its outputs.
        class_names: what they mean, where the model itself knows.
    """

    module: nn.Module
    spec: ModelSpec
    weights: WeightsReport
    input_size: int
    num_classes: int
    class_names: Tuple[str, ...] = ()


def create_model(name: str, *, num_classes: Optional[int] = None, weights: str = "pretrained",
                 weights_partial: bool = False, normlayer: str = DEFAULT_NORM_LAYER,
                 norm: Optional[NormOptions] = None, input_padding: bool = False,
                 model_options: Optional[Mapping[str, Any]] = None,
                 input_size: Optional[int] = None,
                 registry: Optional[Registry] = None) -> BuiltModel:
    """Build a model: network, norm layers, residual zero-init, weights, input padding.

    Random weights come from torch's global generator.

    Args:
        name: a model's name, alias or `distribution:name`.
        num_classes: outputs; those of the published network when not given.
        weights: `random`, `pretrained`, `pretrained:TAG` or a file.
        weights_partial: accept weights of which only a part fits.
        normlayer: the norm layer's name.
        norm: its options; the defaults of `NormOptions` when not given.
        input_padding: have the first convolution read four channels.
        model_options: options that only some models have, by name; None is not given.
        input_size: height and width of its images; those of its record when not given.
        registry: where names are looked up; this process's when not given.

    Raises:
        UsageError: an unknown name, or an option that the model or the norm layer lacks.
        WeightsError: the weights cannot be had or do not fit.
    """
    registry = registry or current_registry()
    spec = registry.get_typed(ModelSpec, name)
    classes = spec.num_classes if num_classes is None else num_classes
    if classes < 1:
        raise UsageError(f"a model cannot have {classes} classes", "the smallest number is 1")
    model = _build(spec, classes, _given(spec, model_options or {}, registry), registry)
    _replace_norms(model, spec, normlayer, norm or NormOptions(), registry)
    if spec.zero_init_residual:
        zero_init_residual(model)
    report = load_weights(model, spec, weights, weights_partial)
    if input_padding:
        pad_input_channels(model)
    return BuiltModel(model, spec, report, input_size or spec.input_size, classes)


def describe_model(name: str, registry: Optional[Registry] = None) -> Dict[str, Any]:
    """Return what `ipucnn show model` tells, as plain types.

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
        "parameters": parameters, "multiply_adds": multiply_adds, "options": list(spec.options),
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


def outline(spec: ModelSpec, registry: Registry,
            options: Optional[Mapping[str, Any]] = None) -> nn.Module:
    """Return a model without weights where it allows that, else with random ones.

    Raises:
        UsageError: it lacks one of the `options`.
    """
    given = _given(spec, options or {}, registry)
    try:
        with torch.device("meta"):
            return _build(spec, spec.num_classes, given, registry)
    except (PluginError, RuntimeError, NotImplementedError):
        return _build(spec, spec.num_classes, given, registry)


def _build(spec: ModelSpec, num_classes: int, options: Mapping[str, Any],
           registry: Registry) -> nn.Module:
    target = registry.resolve(spec)
    try:
        model = target(num_classes=num_classes, **options)
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


def _given(spec: ModelSpec, options: Mapping[str, Any], registry: Registry) -> Dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    for name in given:
        if name not in spec.options:
            having = [row.name for row in registry.rows("model")
                      if isinstance(row.spec, ModelSpec) and name in row.spec.options]
            raise UsageError(
                f"model {spec.name!r} has no option '--{name.replace('_', '-')}'",
                "models that have it: " + ", ".join(having) if having else "no model has it")
    return given


def _replace_norms(model: nn.Module, spec: ModelSpec, normlayer: str, options: NormOptions,
                   registry: Registry) -> None:
    layer = registry.get_typed(NormLayerSpec, normlayer)
    default = NormOptions()
    for name, flag in (("groups", "--groupnorm-group-num"), ("eps", "--norm-eps"),
                       ("momentum", "--batchnorm-momentum")):
        if getattr(options, name) != getattr(default, name) and name not in layer.options:
            raise UsageError(f"norm layer {layer.name!r} has no {name}, so option '{flag}' has no "
                             "meaning", "leave it out, or choose another '--normlayer'")
    replaced = replace_norms(model, registry.resolve(layer), options)
    if not replaced and (layer.name != DEFAULT_NORM_LAYER or options != default):
        raise UsageError(f"model {spec.name!r} has no batch norm that norm layer {layer.name!r} "
                         "could replace", "leave the norm layer's options out")
