"""ipucnn: image-classification CNNs on Graphcore IPUs, and the same command on CPU and GPU.

Importing this package is light: torch is imported when a model, a dataset or a run is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ipucnn.version import __version__

if TYPE_CHECKING:
    from ipucnn.api import (
        create_model,
        export,
        list_models,
        load_dataset,
        restore,
        run,
        train,
        validate,
    )
    from ipucnn.core.errors import IpucnnError
    from ipucnn.core.options.declaration import option
    from ipucnn.core.preprocessing import Preprocessing
    from ipucnn.core.registry.hookspecs import hookimpl
    from ipucnn.core.registry.records import (
        BackendSpec,
        DatasetSpec,
        LauncherSpec,
        LoggerSpec,
        LossSpec,
        ModelSpec,
        NormLayerSpec,
        OptimizerSpec,
        PublishedWeights,
        Requirement,
        ScheduleSpec,
    )

__all__ = [
    "BackendSpec",
    "DatasetSpec",
    "IpucnnError",
    "LauncherSpec",
    "LoggerSpec",
    "LossSpec",
    "ModelSpec",
    "NormLayerSpec",
    "OptimizerSpec",
    "Preprocessing",
    "PublishedWeights",
    "Requirement",
    "ScheduleSpec",
    "__version__",
    "create_model",
    "export",
    "hookimpl",
    "list_models",
    "load_dataset",
    "option",
    "restore",
    "run",
    "train",
    "validate",
]

_HOMES = {
    "IpucnnError": "ipucnn.core.errors",
    "hookimpl": "ipucnn.core.registry.hookspecs",
    "Preprocessing": "ipucnn.core.preprocessing",
    "option": "ipucnn.core.options.declaration",
    **dict.fromkeys(("create_model", "export", "list_models", "load_dataset", "restore", "run",
                     "train", "validate"), "ipucnn.api"),
    **dict.fromkeys(
        ("BackendSpec", "DatasetSpec", "LauncherSpec", "LoggerSpec", "LossSpec", "ModelSpec",
         "NormLayerSpec", "OptimizerSpec", "PublishedWeights", "Requirement", "ScheduleSpec"),
        "ipucnn.core.registry.records"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ipucnn' has no attribute {name!r}")
