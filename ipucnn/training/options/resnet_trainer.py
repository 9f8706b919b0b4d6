"""Translates options of the old PopART ResNet trainer into those of `ipucnn train`.

The translation happens when a training's options are merged, so the translated options are saved
with the training.
"""

from dataclasses import dataclass, replace
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    ClassVar,
    Dict,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from ipucnn.core.errors import UsageError
from ipucnn.core.names import flag_of
from ipucnn.core.options.assignment import by_name, options_for
from ipucnn.core.options.composition import Given, default_of
from ipucnn.core.options.declaration import option

if TYPE_CHECKING:
    from ipucnn.core.registry.registry import Registry

_SMALL = ("8", "14", "20", "32", "44", "56", "110")
_LARGE = ("18", "34", "50", "101", "152", "x50")

DECAYS = (1.0, 0.1, 0.01)
DROPS = (0.5, 0.75)
"""The old trainer's behaviour when only one of the two was given."""


_TRANSLATED: Dict[str, Any] = {"switch": True, "in_profiles": True}


@dataclass(frozen=True)
class ResNetTrainerOptions:
    """Options of the old trainer, which stand for others; see `translated`."""

    heading: ClassVar[str] = "As in the ResNet trainer"

    size: Optional[str] = option(
        None, "Number of layers of the ResNet, or 'x50' for the ResNeXt: sets '--model' for the "
        "dataset.",
        choices=_SMALL + _LARGE, **_TRANSLATED)
    dataset: Optional[str] = option(
        None, "CIFAR-10, CIFAR-100, IMAGENET, or another '--data'.", kind="dataset",
        **_TRANSLATED)
    base_learning_rate: Optional[float] = option(
        None, "Exponent x: sets '--lr' to 2 ^ x times '--batch-size' of all replicas, for "
        "gradients that are summed over accumulation ('--accumulation-reduction sum').",
        minimum=-64,
        maximum=64, **_TRANSLATED, metavar="X")
    learning_rate_schedule: Tuple[float, ...] = option(
        (), "Sets '--lr-epoch-decay', as fractions of the training at which the next factor of "
        "'--learning-rate-decay' begins (default with these factors: 0.5 and 0.75).",
        exclusive_minimum=0.0, maximum=1.0, **_TRANSLATED, metavar="FRACTION...")
    replication_factor: Optional[int] = option(
        None, "Replicas that share '--batch-size'.", minimum=1, **_TRANSLATED)
    num_ipus: Optional[int] = option(
        None, "Number of IPUs of all replicas. If it is larger than the number of replicas, the "
        "IPUs of a replica share the model as a pipeline ('--pipeline') or one after the other "
        "('--sharded').", minimum=1, **_TRANSLATED)
    pipeline: bool = option(
        False, "Divide the model into one pipeline stage for each IPU of a replica, of equal "
        "cost: sets '--pipeline-splits' and, if it is not given, '--gradient-accumulation'.",
        **_TRANSLATED, negatable=False)
    valid_per_epoch: Optional[float] = option(
        None, "Validations per epoch, 1 or a fraction: sets '--validation-frequency'.",
        exclusive_minimum=0.0, **_TRANSLATED)
    log_dir_string: Optional[str] = option(
        None, "Name of the log folder in '--log-dir', or in 'logs'.",
        **_TRANSLATED, metavar="NAME")
    ckpt: Optional[str] = option(
        None, "Not supported, because it names one ONNX file; use '--checkpoint-path' with a "
        "folder.",
        switch=True, metavar="FILE")


STANDS_FOR: Mapping[str, Tuple[str, ...]] = {
    "size": ("model",), "dataset": ("data",), "base_learning_rate": ("lr",),
    "learning_rate_schedule": ("lr_epoch_decay",), "replication_factor": ("replicas",),
    "pipeline": ("pipeline_splits",),
    "valid_per_epoch": ("validation_mode", "validation_frequency", "no_validation")}
"""Options that an option of the old trainer stands for, and contradicts."""

_FORMER: Mapping[str, Any] = {
    "data": "cifar10", "batch_size": 1, "precision": "16.16", "epoch": 10, "lr": 0.01,
    "lr_schedule": "step", "warmup_epoch": 0.0, "validation_mode": "after",
    "validation_frequency": 4, "momentum": 0.0}
"""Defaults of a training with options of the old trainer, which has those of the first release."""

_STEPS = ("lr_factors", "lr_epoch_decay")
"""Options that choose the schedule 'step' where none is named: it was the default."""

_KINDS = ("lr-schedule", "model", "optimizer")
"""The kinds of plugins whose options the old trainer's options stand for or depend on."""


def translated(options_class: type, sources: Sequence[Dict[str, Any]], others: List[List[Given]],
               registry: "Registry") -> Dict[str, Any]:
    """Return the merged values of several sources, with the old trainer's options translated.

    Args:
        options_class: the options of the command, for their defaults.
        sources: values of common options by name; later ones override earlier ones.
        others: plugin options of each source; the translations of the old trainer's options are
            added.
        registry: where names are looked up.

    Raises:
        UsageError: an option together with its translation, or a value without a translation.
    """
    old_names = set(ResNetTrainerOptions.__dataclass_fields__)
    given = [by_name(source, _KINDS, registry) for source in others]
    named = [{name: item.value for name, item in source.items()} for source in given]
    if not any(old_names & source.keys() for source in sources) and not any(
            source.get(name) for source in named for name in _STEPS):
        return {name: value for source in sources for name, value in source.items()}
    values = _merged([{**source, **further} for source, further in zip(sources, named)])
    if any(old_names & source.keys() for source in sources):
        values = {**_former(values, registry), **values}
    values.setdefault("lr_schedule", "step")
    plugin_names = {name for source in named for name in source} | {*_STEPS, "momentum"}
    _translate(values, options_class, registry)
    for source in others:
        source.clear()
    last = {name: item for source in given for name, item in source.items()}
    others.append([replace(last.get(name, Given(name, None)), spelling=name,
                           value=values.pop(name))
                   for name in sorted(plugin_names) if name in values])
    return values


def _former(values: Mapping[str, Any], registry: "Registry") -> Dict[str, Any]:
    """Return the old trainer's defaults; without its dataset where a folder holds another one."""
    from ipucnn.data.formats.recognition import dataset_in

    place = values.get("data_dir")
    kept = not place or "size" in values or "dataset" in values \
        or dataset_in(place, registry, _FORMER["data"]) == _FORMER["data"]
    return {name: value for name, value in _FORMER.items() if kept or name != "data"}


def _merged(sources: Sequence[Dict[str, Any]]) -> Dict[str, Any]:
    """Merge option values; an option replaces the options it stands for, and vice versa.

    Raises:
        UsageError: one source contains both.
    """
    values: Dict[str, Any] = {}
    for source in sources:
        for old, others in STANDS_FOR.items():
            both = [name for name in others if old in source and name in source]
            if both:
                raise UsageError(f"'{flag_of(old)}' contradicts '{flag_of(both[0])}'",
                                 "leave one of them out")
            if old in source:
                for name in others:
                    values.pop(name, None)
            elif any(name in source for name in others):
                values.pop(old, None)
        values.update(source)
    return values


def _translate(values: Dict[str, Any], options_class: type, registry: "Registry") -> None:
    """Replace the old trainer's options among `values` by their translations."""
    old = {name: values.pop(name) for name in ResNetTrainerOptions.__dataclass_fields__
           if name in values}
    old = {name: value for name, value in old.items() if value not in (None, (), False)}

    def current(name: str) -> Any:
        if name in values:
            return values[name]
        return () if name.startswith("lr_") and name != "lr_schedule" else default_of(
            options_class, name)

    if "ckpt" in old:
        raise UsageError(f"'--ckpt {old['ckpt']}' would be a single file without what a restored "
                         "training needs", "name a folder with '--checkpoint-path DIR'")
    if "dataset" in old:
        values["data"] = _dataset(old["dataset"], registry)
    if "size" in old:
        values["model"] = _model(old["size"], _dataset(current("data"), registry))
    if "replication_factor" in old:
        values["replicas"] = old["replication_factor"]
        values["batch_size"] = _share(current("batch_size"), old["replication_factor"])
    if "learning_rate_schedule" in old or (current("lr_factors")
                                           and not current("lr_epoch_decay")):
        values.update(_drops(old.get("learning_rate_schedule"), values, current))
    if "valid_per_epoch" in old:
        values.update(validation_mode="during",
                      validation_frequency=_frequency(old["valid_per_epoch"]))
    if "log_dir_string" in old:
        values["log_dir"] = f"{current('log_dir') or 'logs'}/{old['log_dir_string']}"
    if "pipeline" in old or "num_ipus" in old:
        _set_stages(old, values, current, registry)
    if "base_learning_rate" in old:
        _set_rate(old["base_learning_rate"], values, current)


def _dataset(name: str, registry: "Registry") -> str:
    return registry.get("dataset", name).name if ":" not in name else name


def _model(size: str, data: str) -> str:
    name = f"resnext{size[1:]}" if size.startswith("x") else f"resnet{size}"
    if data.startswith("cifar"):
        return f"{name}-cifar"
    if size in _SMALL:
        raise UsageError(f"'--size {size}' is for images of 32 pixels, not for dataset {data!r}",
                         f"sizes for it: {', '.join(_LARGE)}; '--model {name}-cifar' takes any "
                         "images")
    return name


def _share(batch_size: int, replicas: int) -> int:
    share, rest = divmod(batch_size, replicas)
    if rest:
        raise UsageError(
            f"'--batch-size {batch_size}' cannot be shared by {replicas} replicas",
            f"with '--replication-factor' it is of all replicas together: use a multiple of "
            f"{replicas}")
    return share


def _drops(fractions: Optional[Tuple[float, ...]], values: Mapping[str, Any],
           current: Callable[[str], Any]) -> Dict[str, Any]:
    """Return the milestones and factors of schedule 'step'."""
    factors = _floats(current("lr_factors")) or (() if "lr_decay" in values else DECAYS)
    if fractions is None:
        if len(factors) > len(DECAYS):
            raise UsageError(f"the {len(factors)} factors of '--learning-rate-decay' have no "
                             "start",
                             f"add '--learning-rate-schedule' with {len(factors) - 1} fractions")
        fractions = DROPS[:len(factors) - 1]
    epochs = current("epoch")
    if epochs is None:
        raise UsageError("'--learning-rate-decay' drops the rate at fractions of the training, "
                         "whose length is not set",
                         "add '--epoch N', or '--lr-epoch-decay' with epochs")
    epochs = max(1, epochs)
    return {"lr_epoch_decay": tuple(fraction * epochs for fraction in fractions),
            "lr_factors": factors}


def _frequency(per_epoch: float) -> int:
    frequency = max(1, round(1 / per_epoch))
    if abs(frequency * per_epoch - 1) > 1e-6:
        raise UsageError(f"'--valid-per-epoch {per_epoch:g}' is not once in a number of epochs",
                         "validation is at the end of an epoch: use 1, 0.5, 0.25, 0.2 ...")
    return frequency


def _stages(old: Mapping[str, Any], current: Callable[[str], Any]) -> int:
    """Return the number of pipeline stages for the IPUs."""
    ipus, replicas = old.get("num_ipus"), current("replicas")
    if ipus is None:
        raise UsageError("'--pipeline' needs a number of IPUs", "add '--num-ipus N'")
    stages, rest = divmod(int(ipus), int(replicas))
    if rest:
        raise UsageError(f"{ipus} IPUs cannot be divided among {replicas} replicas",
                         f"use a '--num-ipus' that is a multiple of {replicas}")
    splits = current("pipeline_splits")
    if splits and stages != len(splits) + 1:
        raise UsageError(
            f"'--num-ipus {ipus}' contradicts {replicas} replicas of {len(splits) + 1} stages",
            "leave it out, or the '--pipeline-splits'")
    return stages


def _set_stages(old: Mapping[str, Any], values: Dict[str, Any], current: Callable[[str], Any],
                registry: "Registry") -> None:
    """Split the model over the IPUs of a replica, as a pipeline or in turn."""
    stages = _stages(old, current)
    if stages == 1 or current("pipeline_splits"):
        return
    values["pipeline_splits"] = _splits(stages, values, current, registry)
    if "pipeline" in old:
        _fill_pipeline(stages, values)
    else:
        values.setdefault("sharded", True)


def _fill_pipeline(stages: int, values: Dict[str, Any]) -> None:
    """Raise the gradient accumulation to what the pipeline needs, where none is given.

    `pipeline` stays among the values then, for `raised_note`. The gradients are added up, so that
    every micro-batch moves the weights as far as in the old trainer, which accumulated nothing.
    """
    needed = 2 * stages - 1
    if needed > 1 and "gradient_accumulation" not in values:
        values.update(gradient_accumulation=needed, pipeline=True)
        values.setdefault("accumulation_reduction", "sum")


def raised_note(pipeline: bool, accumulation: int) -> str:
    """Return the note that `_fill_pipeline` raised the accumulation; empty if it did not."""
    if not pipeline:
        return ""
    return (f"'--pipeline' needs a gradient accumulation of {accumulation} for its stages, and "
            "none is given: weights are updated once for as many micro-batches")


def _set_rate(exponent: float, values: Dict[str, Any], current: Callable[[str], Any]) -> None:
    """Set the learning rate 2^x times the batch of all replicas.

    PopART adds gradients up over accumulation by default, which the old trainer left, so that its
    steps grow with the accumulation.
    """
    values["lr"] = 2.0 ** exponent * current("batch_size") * current("replicas")
    if current("gradient_accumulation") > 1:
        values.setdefault("accumulation_reduction", "sum")


def _splits(stages: int, values: Mapping[str, Any], current: Callable[[str], Any],
            registry: "Registry") -> Tuple[str, ...]:
    from ipucnn.models.balance import model_balance

    spec = registry.get("model", current("model"))
    return tuple(model_balance(spec.name, stages, input_size=current("input_size"),
                               options=options_for(spec, "model", values, registry)))


def _floats(value: Any) -> Tuple[float, ...]:
    """Return the values of an option of several numbers, given in any form."""
    if isinstance(value, (int, float)):
        return (float(value),)
    items = value.split() if isinstance(value, str) else value
    try:
        return tuple(float(part) for item in items
                     for part in (item.replace(",", " ").split() if isinstance(item, str)
                                  else [item]))
    except (TypeError, ValueError):
        return ()  # the option's own declaration rejects it
