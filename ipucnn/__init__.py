"""ipucnn: train and run image-classification CNNs on CPUs, GPUs and Graphcore IPUs.

Train, run and export, as the commands of the same names:

    train, restore, validate, average, run, export, plan, bench, report

Models and datasets as objects:

    load(FILE).predict(IMAGE), create_model, list_models, load_dataset

Data and this machine:

    fetch, shapes, partition, convert, verify, doctor

`help(ipucnn.train)` lists the options of a function. Errors that a user can act on are of class
`IpucnnError`. Plugins use the other names.

Importing this package is light: torch is imported when a model, a dataset or a run is used.
"""

from __future__ import annotations

import importlib
from typing import Any, List

from ipucnn.version import __version__

_HOMES = {
    **dict.fromkeys(("average", "bench", "export", "plan", "report", "restore", "run", "train",
                     "validate"),
                    "ipucnn.api.jobs"),
    **dict.fromkeys(("create_model", "list_models", "load", "load_dataset"),
                    "ipucnn.api.objects"),
    **dict.fromkeys(("convert", "fetch", "partition", "shapes", "verify"),
                    "ipucnn.api.data_tools"),
    "IpucnnError": "ipucnn.core.errors",
    "StopTraining": "ipucnn.core.progress",
    "hookimpl": "ipucnn.core.registry.hookspecs",
    "Preprocessing": "ipucnn.core.preprocessing",
    "option": "ipucnn.core.options.declaration",
    **dict.fromkeys(
        ("BackendSpec", "DatasetSpec", "LauncherSpec", "LoggerSpec", "LossSpec", "ModelSpec",
         "NormLayerSpec", "OptimizerSpec", "PublishedWeights", "ScheduleSpec"),
        "ipucnn.core.registry.records"),
    "Requirement": "ipucnn.core.registry.contract",
}
"""The module of each public name but `doctor`, which is a package that can be called."""

__all__ = [
    "BackendSpec", "DatasetSpec", "IpucnnError", "LauncherSpec", "LoggerSpec", "LossSpec",
    "ModelSpec", "NormLayerSpec", "OptimizerSpec", "Preprocessing", "PublishedWeights",
    "Requirement", "ScheduleSpec", "StopTraining", "__version__", "average", "bench", "convert",
    "create_model", "doctor", "export", "fetch", "hookimpl", "list_models", "load",
    "load_dataset", "option", "partition", "plan", "report", "restore", "run", "shapes",
    "train", "validate", "verify"]


def __getattr__(name: str) -> Any:
    if name == "doctor":
        return importlib.import_module("ipucnn.doctor")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ipucnn' has no attribute {name!r}")


def __dir__() -> List[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
