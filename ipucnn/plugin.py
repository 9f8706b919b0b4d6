"""All that a plugin needs of ipucnn: records, interfaces, errors and helpers.

    from ipucnn.plugin import Backend, InferenceSession, Probe, UsageError

These names are stable (`docs/stability.md`); the modules that they come from are not. Importing
this module is light: each name is imported at its first use, and only `Writer`, `OnnxBackend` and
the functions on images and optimizers (`normalise`, `decode`, `make_optimizer` ...) import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    from ipucnn.core.checks import Check as Check
    from ipucnn.core.errors import DataError as DataError
    from ipucnn.core.errors import IpucnnError as IpucnnError
    from ipucnn.core.errors import NoSplitError as NoSplitError
    from ipucnn.core.errors import OutOfMemoryError as OutOfMemoryError
    from ipucnn.core.errors import PluginError as PluginError
    from ipucnn.core.errors import UnavailableError as UnavailableError
    from ipucnn.core.errors import UnsupportedNetworkError as UnsupportedNetworkError
    from ipucnn.core.errors import UsageError as UsageError
    from ipucnn.core.errors import WeightsError as WeightsError
    from ipucnn.core.execution.accuracy import is_correct as is_correct
    from ipucnn.core.execution.backend import Backend as Backend
    from ipucnn.core.execution.backend import InferenceSession as InferenceSession
    from ipucnn.core.execution.backend import Probe as Probe
    from ipucnn.core.execution.calibration import Calibration as Calibration
    from ipucnn.core.execution.feeding import FeedRequest as FeedRequest
    from ipucnn.core.execution.instances import ALONE as ALONE
    from ipucnn.core.execution.instances import Instances as Instances
    from ipucnn.core.execution.launcher import Launch as Launch
    from ipucnn.core.execution.launcher import Launcher as Launcher
    from ipucnn.core.execution.launching import joined as joined
    from ipucnn.core.execution.losses import CrossEntropyForm as CrossEntropyForm
    from ipucnn.core.execution.losses import Loss as Loss
    from ipucnn.core.execution.losses import PerImageLoss as PerImageLoss
    from ipucnn.core.execution.losses import one_per_image as one_per_image
    from ipucnn.core.execution.losses import unsupported as unsupported
    from ipucnn.core.execution.mixing import Mixing as Mixing
    from ipucnn.core.execution.mixing import MixOptions as MixOptions
    from ipucnn.core.execution.mixing import mixed_labels as mixed_labels
    from ipucnn.core.execution.plan import ExecutionPlan as ExecutionPlan
    from ipucnn.core.execution.training_session import NonFiniteLoss as NonFiniteLoss
    from ipucnn.core.execution.training_session import OptimizerChoice as OptimizerChoice
    from ipucnn.core.execution.training_session import StateDict as StateDict
    from ipucnn.core.execution.training_session import StepResult as StepResult
    from ipucnn.core.execution.training_session import TrainingBatch as TrainingBatch
    from ipucnn.core.execution.training_session import TrainingSession as TrainingSession
    from ipucnn.core.execution.training_session import TrainingSetup as TrainingSetup
    from ipucnn.core.loggers import COMPLETED as COMPLETED
    from ipucnn.core.loggers import FAILED as FAILED
    from ipucnn.core.loggers import STOPPED as STOPPED
    from ipucnn.core.loggers import Logger as Logger
    from ipucnn.core.loggers import RunInfo as RunInfo
    from ipucnn.core.options.declaration import option as option
    from ipucnn.core.preprocessing import Preprocessing as Preprocessing
    from ipucnn.core.registry.contract import API_VERSION as API_VERSION
    from ipucnn.core.registry.contract import Requirement as Requirement
    from ipucnn.core.registry.deprecations import (
        PluginDeprecationWarning as PluginDeprecationWarning,
    )
    from ipucnn.core.registry.hookspecs import hookimpl as hookimpl
    from ipucnn.core.registry.records import BackendSpec as BackendSpec
    from ipucnn.core.registry.records import DatasetSpec as DatasetSpec
    from ipucnn.core.registry.records import LauncherSpec as LauncherSpec
    from ipucnn.core.registry.records import LoggerSpec as LoggerSpec
    from ipucnn.core.registry.records import LossSpec as LossSpec
    from ipucnn.core.registry.records import ModelSpec as ModelSpec
    from ipucnn.core.registry.records import NormLayerSpec as NormLayerSpec
    from ipucnn.core.registry.records import OptimizerSpec as OptimizerSpec
    from ipucnn.core.registry.records import PublishedWeights as PublishedWeights
    from ipucnn.core.registry.records import ScheduleSpec as ScheduleSpec
    from ipucnn.data import DatasetRequest as DatasetRequest
    from ipucnn.data import ImageDataset as ImageDataset
    from ipucnn.data import check_classes as check_classes
    from ipucnn.data.formats.convert import Writer as Writer
    from ipucnn.data.images import decode as decode
    from ipucnn.data.mixup import mix_images as mix_images
    from ipucnn.data.normalisation import fed as fed
    from ipucnn.data.normalisation import normalise as normalise
    from ipucnn.models.norms import NormSite as NormSite
    from ipucnn.models.optimisation import load_optimizer as load_optimizer
    from ipucnn.models.optimisation import make_optimizer as make_optimizer
    from ipucnn.models.optimisation import optimizer_state as optimizer_state
    from ipucnn.models.optimisation import parameter_groups as parameter_groups
    from ipucnn.models.optimisation import set_rate as set_rate
    from ipucnn.onnx.engine_base import OnnxBackend as OnnxBackend
    from ipucnn.onnx.target import OnnxTarget as OnnxTarget

_HOMES = {
    "ipucnn.core.checks": ("Check",),
    "ipucnn.core.errors": ("DataError", "IpucnnError", "NoSplitError", "OutOfMemoryError",
                           "PluginError", "UnavailableError", "UnsupportedNetworkError",
                           "UsageError", "WeightsError"),
    "ipucnn.core.execution.accuracy": ("is_correct",),
    "ipucnn.core.execution.backend": ("Backend", "InferenceSession", "Probe"),
    "ipucnn.core.execution.calibration": ("Calibration",),
    "ipucnn.core.execution.feeding": ("FeedRequest",),
    "ipucnn.core.execution.instances": ("ALONE", "Instances"),
    "ipucnn.core.execution.launcher": ("Launch", "Launcher"),
    "ipucnn.core.execution.launching": ("joined",),
    "ipucnn.core.execution.losses": ("CrossEntropyForm", "Loss", "PerImageLoss", "one_per_image",
                                     "unsupported"),
    "ipucnn.core.execution.mixing": ("Mixing", "MixOptions", "mixed_labels"),
    "ipucnn.core.execution.plan": ("ExecutionPlan",),
    "ipucnn.core.execution.training_session": (
        "NonFiniteLoss", "OptimizerChoice", "StateDict", "StepResult", "TrainingBatch",
        "TrainingSession", "TrainingSetup"),
    "ipucnn.core.loggers": ("COMPLETED", "FAILED", "STOPPED", "Logger", "RunInfo"),
    "ipucnn.core.options.declaration": ("option",),
    "ipucnn.core.preprocessing": ("Preprocessing",),
    "ipucnn.core.registry.contract": ("API_VERSION", "Requirement"),
    "ipucnn.core.registry.deprecations": ("PluginDeprecationWarning",),
    "ipucnn.core.registry.hookspecs": ("hookimpl",),
    "ipucnn.core.registry.records": (
        "BackendSpec", "DatasetSpec", "LauncherSpec", "LoggerSpec", "LossSpec", "ModelSpec",
        "NormLayerSpec", "OptimizerSpec", "PublishedWeights", "ScheduleSpec"),
    "ipucnn.data": ("DatasetRequest", "ImageDataset", "check_classes"),
    "ipucnn.data.formats.convert": ("Writer",),
    "ipucnn.data.images": ("decode",),
    "ipucnn.data.mixup": ("mix_images",),
    "ipucnn.data.normalisation": ("fed", "normalise"),
    "ipucnn.models.norms": ("NormSite",),
    "ipucnn.models.optimisation": ("load_optimizer", "make_optimizer", "optimizer_state",
                                   "parameter_groups", "set_rate"),
    "ipucnn.onnx.engine_base": ("OnnxBackend",),
    "ipucnn.onnx.target": ("OnnxTarget",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

NAMES = (*_HOME, "join_torch_distributed")
"""All public names."""


def join_torch_distributed(launch: Launch) -> Instances:
    """Connect a process to the others by torch.distributed, for `Launcher.join`.

    The launcher sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in `os.environ` before.

    Args:
        launch: the place of the process.

    Raises:
        UnavailableError: the others cannot be reached.
    """
    joined: Instances = importlib.import_module("ipucnn.plugins.launchers.torchrun").join(launch)
    return joined


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ipucnn.plugin' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> List[str]:
    return [*NAMES, *(name for name in globals() if name.startswith("__"))]
