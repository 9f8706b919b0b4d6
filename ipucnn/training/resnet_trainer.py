"""The options of the old ResNet trainer on PopART that stand for others of `ipucnn train`.

They are translated as soon as a training's options are put together, so that what is saved with a
training are the options they stand for.
"""

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.options.declaration import declared, option

_GROUP = "As in the ResNet trainer"
_SMALL = ("8", "14", "20", "32", "44", "56", "110")
_LARGE = ("18", "34", "50", "101", "152", "x50")

DECAYS = (1.0, 0.1, 0.01)
DROPS = (0.5, 0.75)
"""What the old trainer did when only one of the two was given."""


@dataclass(frozen=True)
class ResNetTrainerOptions:
    """Options that stand for others; see `translated`."""

    size: Optional[str] = option(
        None, "Layers of the ResNet, 'x50' of the ResNeXt: '--model' for the chosen dataset.",
        group=_GROUP, choices=_SMALL + _LARGE, switch=True)
    dataset: Optional[str] = option(
        None, "CIFAR-10, CIFAR-100, IMAGENET, or another '--data'.", group=_GROUP, kind="dataset",
        switch=True)
    base_learning_rate: Optional[float] = option(
        None, "Exponent x of '--lr': 2 ^ x times '--batch-size', of all replicas together and "
        "without gradient accumulation.", group=_GROUP, minimum=-64, maximum=64, switch=True,
        metavar="X")
    learning_rate_schedule: Tuple[float, ...] = option(
        (), "'--lr-epoch-decay' as fractions of the training: where the next factor of "
        "'--learning-rate-decay' begins. 0.5 and 0.75 when only the factors are given.",
        group=_GROUP, exclusive_minimum=0.0, maximum=1.0, switch=True, metavar="FRACTION...")
    replication_factor: Optional[int] = option(
        None, "Replicas that share '--batch-size' among them.", group=_GROUP, minimum=1,
        switch=True)
    num_ipus: Optional[int] = option(
        None, "IPUs of all replicas; more than replicas with '--pipeline'.", group=_GROUP,
        minimum=1, switch=True)
    pipeline: bool = option(
        False, "Cut the model into as many pipeline stages as there are IPUs for a replica, so "
        "that the largest is as small as possible: '--pipeline-splits' chosen for you.",
        group=_GROUP, switch=True, negatable=False)
    valid_per_epoch: Optional[float] = option(
        None, "Validations per epoch, 1 or a fraction: '--validation-mode during'.",
        group=_GROUP, exclusive_minimum=0.0, switch=True)
    log_dir_string: Optional[str] = option(
        None, "Folder of metrics and options within '--log-dir', or within 'logs'.",
        group=_GROUP, switch=True, metavar="NAME")
    ckpt: Optional[str] = option(
        None, "Refused: it named one ONNX file; '--checkpoint-path' names a folder.",
        group=_GROUP, switch=True, metavar="FILE")


_STANDS_FOR: Mapping[str, Tuple[str, ...]] = {
    "size": ("model",), "dataset": ("data",), "base_learning_rate": ("lr",),
    "learning_rate_schedule": ("lr_epoch_decay",), "replication_factor": ("replicas",),
    "pipeline": ("pipeline_splits",),
    "valid_per_epoch": ("validation_mode", "validation_frequency", "no_validation")}


def merged(sources: List[Dict[str, Any]]) -> Dict[str, Any]:
    """Lay option values over each other; an option replaces what it stands for, and vice versa.

    Raises:
        UsageError: one source has both.
    """
    values: Dict[str, Any] = {}
    for source in sources:
        for old, others in _STANDS_FOR.items():
            both = [name for name in others if old in source and name in source]
            if both:
                raise UsageError(f"'{_flag(old)}' contradicts '{_flag(both[0])}'",
                                 "leave one of them out")
            if old in source:
                for name in others:
                    values.pop(name, None)
            elif any(name in source for name in others):
                values.pop(old, None)
        values.update(source)
    return values


def translated(values: Dict[str, Any], options_class: type) -> Dict[str, Any]:
    """Return option values in which what the old trainer's options stand for replaces them.

    Args:
        values: option values by name.
        options_class: the command's options, for their defaults.

    Raises:
        UsageError: a value that cannot be translated.
    """
    old = {name: values.pop(name) for name in ResNetTrainerOptions.__dataclass_fields__
           if name in values}
    old = {name: value for name, value in old.items() if value not in (None, (), False)}

    def current(name: str) -> Any:
        return values.get(name, getattr(options_class, name))

    if "ckpt" in old:
        raise UsageError(f"'--ckpt {old['ckpt']}' would be a single file without what a restored "
                         "training needs", "name a folder with '--checkpoint-path DIR'")
    if "dataset" in old:
        values["data"] = _dataset(old["dataset"])
    if "size" in old:
        values["model"] = _model(old["size"], _dataset(current("data")))
    if "replication_factor" in old:
        values["replicas"] = old["replication_factor"]
        values["batch_size"] = _share(current("batch_size"), old["replication_factor"])
    if "base_learning_rate" in old:
        values["lr"] = 2.0 ** old["base_learning_rate"] * current("batch_size") * current(
            "replicas")
    if "learning_rate_schedule" in old or (current("lr_factors")
                                           and not current("lr_epoch_decay")):
        values.update(_drops(old.get("learning_rate_schedule"), values, current))
    if "valid_per_epoch" in old:
        values.update(validation_mode="during",
                      validation_frequency=_frequency(old["valid_per_epoch"]))
    if "log_dir_string" in old:
        values["log_dir"] = f"{current('log_dir') or 'logs'}/{old['log_dir_string']}"
    if "pipeline" in old or "num_ipus" in old:
        stages = _stages(old, current)
        if stages > 1 and not current("pipeline_splits"):
            values["pipeline_splits"] = _splits(stages, current, options_class)
    return values


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _dataset(name: str) -> str:
    from ipucnn.core.registry.registry import registry

    return registry().get("dataset", name).name if ":" not in name else name


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
    factors = current("lr_factors") or (() if "lr_decay" in values else DECAYS)
    if fractions is None:
        if len(factors) > len(DECAYS):
            raise UsageError(f"nothing says when the {len(factors)} factors of "
                             "'--learning-rate-decay' begin",
                             f"add '--learning-rate-schedule' with {len(factors) - 1} fractions")
        fractions = DROPS[:len(factors) - 1]
    epochs = max(1, current("epoch"))
    return {"lr_epoch_decay": tuple(fraction * epochs for fraction in fractions),
            "lr_factors": factors}


def _frequency(per_epoch: float) -> int:
    frequency = max(1, round(1 / per_epoch))
    if abs(frequency * per_epoch - 1) > 1e-6:
        raise UsageError(f"'--valid-per-epoch {per_epoch:g}' is not once in a number of epochs",
                         "validation is at the end of an epoch: use 1, 0.5, 0.25, 0.2 ...")
    return frequency


def _stages(old: Mapping[str, Any], current: Callable[[str], Any]) -> int:
    """Return the pipeline stages that the IPUs are for."""
    ipus, replicas = old.get("num_ipus"), current("replicas")
    if ipus is None:
        raise UsageError("'--pipeline' does not say over how many IPUs", "add '--num-ipus N'")
    stages, rest = divmod(int(ipus), int(replicas))
    if rest:
        raise UsageError(f"{ipus} IPUs cannot be divided among {replicas} replicas",
                         f"use a '--num-ipus' that is a multiple of {replicas}")
    splits = current("pipeline_splits")
    if splits and stages != len(splits) + 1:
        raise UsageError(
            f"'--num-ipus {ipus}' contradicts {replicas} replicas of {len(splits) + 1} stages",
            "leave it out, or the '--pipeline-splits'")
    if stages > 1 and not splits and "pipeline" not in old:
        raise UsageError(
            f"'--num-ipus {ipus}' is {stages} IPUs for every replica, which only a pipeline uses",
            f"add '--pipeline', or use '--replication-factor {ipus}'")
    return stages


def _splits(stages: int, current: Callable[[str], Any], options_class: type) -> Tuple[str, ...]:
    from ipucnn.models.balance import model_balance

    return tuple(model_balance(
        current("model"), stages, input_size=current("input_size"),
        options={item.name: current(item.name) for item in declared(options_class)
                 if item.option.model_option}))
