"""The table of kinds of plugins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Tuple, Type

from ipucnn.core.errors import UsageError
from ipucnn.core.names import did_you_mean, key
from ipucnn.core.registry.contract import PluginSpec
from ipucnn.core.registry.records import (
    BackendSpec,
    DatasetSpec,
    LauncherSpec,
    LoggerSpec,
    LossSpec,
    ModelSpec,
    NormLayerSpec,
    OptimizerSpec,
    ScheduleSpec,
)


@dataclass(frozen=True)
class Kind:
    """One kind of plugin: its names in the CLI, its hook, its record and its entry-point prefix.

    Attributes:
        selector: the option that selects a plugin of the kind, as a field name.
        former: other spellings of the kind that are accepted.
    """

    name: str
    plural: str
    hook: str
    record: Type[PluginSpec]
    prefix: str
    selector: str
    former: Tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("model", "models", "ipucnn_models", ModelSpec, "models", "model"),
        Kind("dataset", "datasets", "ipucnn_datasets", DatasetSpec, "datasets", "data"),
        Kind("norm-layer", "norm-layers", "ipucnn_norm_layers", NormLayerSpec, "norm_layers",
             "normlayer"),
        Kind("optimizer", "optimizers", "ipucnn_optimizers", OptimizerSpec, "optimizers",
             "optimizer"),
        Kind("lr-schedule", "lr-schedules", "ipucnn_lr_schedules", ScheduleSpec, "schedulers",
             "lr_schedule", former=("schedule", "schedules")),
        Kind("backend", "backends", "ipucnn_backends", BackendSpec, "backends", "backend"),
        Kind("loss", "losses", "ipucnn_losses", LossSpec, "losses", "loss"),
        Kind("logger", "loggers", "ipucnn_loggers", LoggerSpec, "loggers", "logger"),
        Kind("launcher", "launchers", "ipucnn_launchers", LauncherSpec, "launchers", "launcher"),
    )
}


def kind_with(record: Type[PluginSpec]) -> Kind:
    """Return the kind whose records are of a type, or of its base."""
    return next(kind for kind in KINDS.values() if issubclass(record, kind.record))


def kind_named(name: str) -> Kind:
    """Return the kind called `name`, in the singular, plural or entry-point spelling.

    Raises:
        UsageError: there is no such kind.
    """
    wanted = key(name)
    for kind in KINDS.values():
        if wanted in {kind.name, kind.plural, key(kind.prefix), *kind.former}:
            return kind
    suggestion = did_you_mean(name, [*KINDS, *(kind.plural for kind in KINDS.values())])
    raise UsageError(f"unknown kind {name!r}",
                     (suggestion + " " if suggestion else "") + "kinds: " + ", ".join(KINDS))
