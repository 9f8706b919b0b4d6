"""The hook specifications that plugins implement.

A plugin is a module (or any object) behind an entry point of the group ``ipucnn`` which implements
one or more of these functions. Each returns an iterable of frozen records (`records`).
Importing the module must be cheap: a record names its implementation as a ``"module:attribute"``
string, which is imported on first use. Example::

    from ipucnn import hookimpl, ModelSpec

    @hookimpl
    def ipucnn_models():
        return [ModelSpec(name="tinynet", summary="two convolutions", target="tinynet.net:build",
                          input_size=64)]

with, in its ``pyproject.toml``::

    [project.entry-points.ipucnn]
    "models.tinynet" = "tinynet.plugin"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterable

import pluggy

if TYPE_CHECKING:
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

PROJECT = "ipucnn"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def ipucnn_models() -> Iterable[ModelSpec]:  # type: ignore[empty-body]
    """Models; ``target(num_classes: int[, options]) -> torch.nn.Module``."""


@hookspec
def ipucnn_datasets() -> Iterable[DatasetSpec]:  # type: ignore[empty-body]
    """Datasets; ``target(request: DatasetRequest[, options]) -> ImageDataset``."""


@hookspec
def ipucnn_norm_layers() -> Iterable[NormLayerSpec]:  # type: ignore[empty-body]
    """Norm layers; ``target(site: NormSite[, options]) -> torch.nn.Module``."""


@hookspec
def ipucnn_optimizers() -> Iterable[OptimizerSpec]:  # type: ignore[empty-body]
    """Optimizers; ``target(param_groups, lr: float[, options]) -> torch.optim.Optimizer``."""


@hookspec
def ipucnn_lr_schedules() -> Iterable[ScheduleSpec]:  # type: ignore[empty-body]
    """Schedules; ``target(epoch: float[, epochs][, frequency][, options]) -> float``."""


@hookspec
def ipucnn_backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]
    """Backends; ``target([options]) -> Backend`` (`ipucnn.plugin.Backend`)."""


@hookspec
def ipucnn_losses() -> Iterable[LossSpec]:  # type: ignore[empty-body]
    """Losses; ``target([options]) -> Loss`` (`ipucnn.plugin.Loss`)."""


@hookspec
def ipucnn_loggers() -> Iterable[LoggerSpec]:  # type: ignore[empty-body]
    """Loggers; ``target([options]) -> Logger`` (`ipucnn.plugin.Logger`)."""


@hookspec
def ipucnn_launchers() -> Iterable[LauncherSpec]:  # type: ignore[empty-body]
    """Launchers; ``target([options]) -> Launcher`` (`ipucnn.plugin.Launcher`)."""
