"""The backend itself: what it finds here, and which plans it takes."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from typing import Any, Dict, Optional

import torch  # noqa: TID253 - a backend's engine is loaded when it is used

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution import Backend, ExecutionPlan, InferenceSession, Probe
from ipucnn.core.training.session import TrainingSession, TrainingSetup
from ipucnn.plugins.backends.poptorch import INSTALL, THREADS

OFFLINE_VERSIONS = (1, 2, 21)
"""IPU generations that PopTorch compiles for without hardware: Mk1, Mk2, and Mk2 with FP8."""

MOST_IPUS = 64
"""IPUs that one process can use."""

_WITHOUT_HARDWARE = ("set POPTORCH_IPU_MODEL=1 to emulate an IPU, or compile for one with "
                     "'--offline-target-ipu-version 2 --compile-only'")


class PopTorchBackend(Backend):
    """Runs plans on IPU hardware or the IPU model, and compiles for IPUs that are elsewhere."""

    def probe(self) -> Probe:
        """Describe the IPUs of this machine, or the IPU model where POPTORCH_IPU_MODEL asks for it.

        A machine with PopTorch and no IPU is not usable, except for plans that only compile.
        """
        return self._probe(None)

    def probe_for(self, plan: ExecutionPlan) -> Probe:
        """Describe what `plan` is executed on; compilation for an offline target needs no IPU."""
        return self._probe(plan.option("offline_target_ipu_version"))

    def inference(self, model: torch.nn.Module, plan: ExecutionPlan,
                  input_size: int) -> InferenceSession:
        """Make an inference session; see `Backend.inference`.

        Raises:
            UnavailableError: there is no PopTorch here, or not as many IPUs as the plan needs.
        """
        sdk = _sdk()
        _check_target(plan)
        _check_devices(plan, sdk)
        _check_io_tiles(plan)
        _check_loading(plan)
        from ipucnn.plugins.backends.poptorch.session import PopTorchInferenceSession

        return PopTorchInferenceSession(model, plan, input_size)

    def training(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int) -> TrainingSession:
        """Make a training session; see `Backend.training`.

        Raises:
            UnavailableError: there is no PopTorch here, or not as many IPUs as the plan needs.
            UsageError: something that the device cannot do.
        """
        sdk = _sdk()
        if setup.tolerate_non_finite:
            raise UsageError("'--skip-non-finite' has no meaning on an IPU, which has made its "
                             "update when the host sees the loss", "leave it out; "
                             "'--auto-loss-scaling' or a lower '--loss-scaling' may help")
        if plan.option("enable_optimizer_rts") and plan.replicas == 1:
            raise UsageError("'--enable-optimizer-rts' shards the optimizer's state over replicas, "
                             "and there is one", "add '--replicas', or leave it out")
        _check_target(plan)
        _check_devices(plan, sdk)
        if plan.option("num_io_tiles", 0):
            raise UsageError("'--num-io-tiles' is for inference here", "leave it out")
        _check_loading(plan)
        from ipucnn.plugins.backends.poptorch.training import PopTorchTrainingSession

        return PopTorchTrainingSession(model, plan, setup, input_size)

    def _probe(self, offline: Optional[int]) -> Probe:
        try:
            sdk = _sdk()
        except UnavailableError as error:
            return Probe(usable=False, reason=error.message, remedy=error.hint)
        versions: Dict[str, str] = {"poptorch": sdk.__version__, "torch": torch.__version__}
        if offline is not None:
            device = f"offline target, IPU version {offline}"
        elif emulated():
            device = "IPU model (an emulation: its speed means nothing)"
        else:
            try:
                found = sdk.ipuHardwareIsAvailable()
                version = sdk.ipuHardwareVersion() if found else 0
            except Exception as error:  # the driver below may fail in any way; a probe never does
                return Probe(usable=False, versions=versions, remedy=_WITHOUT_HARDWARE,
                             reason=f"the IPU driver failed: {_first_line(error)}")
            if not found:
                return Probe(usable=False, versions=versions, remedy=_WITHOUT_HARDWARE,
                             reason="this machine has no IPU")
            device = f"IPU version {version}"
        return Probe(usable=True, device=device, versions=versions, half="float16")


def emulated() -> bool:
    """Return whether PopTorch will use the IPU model, as its own reading of the environment has it.

    Source: PopTorch 3.3, `popart_compiler/source/Utils.cpp`; the small model is one of few tiles.
    """
    for variable in ("POPTORCH_IPU_MODEL", "POPTORCH_SMALL_IPU_MODEL"):
        try:
            if int(os.environ.get(variable, "0")) != 0:
                return True
        except ValueError:
            continue
    return False


def _sdk() -> Any:
    """Return the `poptorch` module.

    Raises:
        UnavailableError: it is missing, or does not import in this environment.
    """
    try:
        return importlib.import_module("poptorch")
    except ModuleNotFoundError as error:
        if error.name == "poptorch":
            raise UnavailableError("'poptorch' is not installed", INSTALL) from error
        raise _unimportable(error) from error
    except Exception as error:  # an assertion on torch's version, a library that is not found ...
        raise _unimportable(error) from error


def _unimportable(error: Exception) -> UnavailableError:
    here = f"torch {torch.__version__} and Python {platform.python_version()}"
    if isinstance(error, AssertionError):  # PopTorch asserts the torch that it was built for
        return UnavailableError(
            f"'poptorch' is not made for {here}: {_first_line(error)}",
            "the Poplar SDK 3.3 and 3.4 need torch 2.0.1, torchvision 0.15.2 and Python 3.8: use "
            "an environment with these")
    remedy = "source the enable.sh scripts of the Poplar SDK in this shell"
    if sys.version_info[:2] != (3, 8):
        remedy += "; its wheels for Ubuntu 20.04 are for Python 3.8"
    return UnavailableError(f"'poptorch' cannot be imported with {here}: {_first_line(error)}",
                            remedy)


def _check_target(plan: ExecutionPlan) -> None:
    version = plan.option("offline_target_ipu_version")
    if version is not None:
        if version not in OFFLINE_VERSIONS:
            raise UsageError(f"option '--offline-target-ipu-version': there is no IPU version "
                             f"{version}", "versions: " + ", ".join(map(str, OFFLINE_VERSIONS)))
        if emulated():
            raise UsageError("'--offline-target-ipu-version' and the IPU model exclude each other",
                             "unset POPTORCH_IPU_MODEL, or leave the option out")
        if not plan.option("compile_only"):
            raise UsageError("a model compiled for an offline target cannot be run here",
                             "add '--compile-only'")
    if plan.option("model_cache_path") and emulated():
        raise UsageError("the IPU model keeps no compiled models: '--model-cache-path' has no "
                         "meaning there", "unset POPTORCH_IPU_MODEL, or leave the option out")


def _check_devices(plan: ExecutionPlan, sdk: Any) -> None:
    count = plan.devices
    need = f"{plan.replicas} replicas of {plan.stages} pipeline stages need {count} IPUs"
    if count > MOST_IPUS:
        raise UsageError(f"{need}, and a process can use {MOST_IPUS}",
                         "use fewer '--replicas' or pipeline splits")
    if plan.option("offline_target_ipu_version") is not None or emulated():
        return
    if count & (count - 1):
        raise UsageError(f"{need}, and IPUs are only given out in powers of two",
                         "choose replicas and pipeline splits whose product is 1, 2, 4, 8 ...")
    if not sdk.ipuHardwareIsAvailable(count):
        raise UnavailableError(f"{need}, and this machine has fewer",
                               "use fewer '--replicas' or pipeline splits; 'gc-info -l' lists the "
                               "IPUs")


def _check_io_tiles(plan: ExecutionPlan) -> None:
    tiles = plan.option("num_io_tiles", 0)
    if not tiles:
        return
    if tiles % 2 or not 32 <= tiles <= 192:
        raise UsageError(f"option '--num-io-tiles': {tiles} tiles cannot be set aside",
                         "use an even number from 32 to 192")
    if plan.pipeline_splits:
        raise UsageError("'--num-io-tiles' and pipeline splits exclude each other: transfers "
                         "cannot overlap with a pipeline", "leave one of them out")


def _check_loading(plan: ExecutionPlan) -> None:
    mode = plan.option("dataloader_mode", THREADS)
    if plan.option("dataloader_rebatch_size") is not None and mode != "rebatched":
        raise UsageError(f"'--dataloader-rebatch-size' has no meaning in data loader mode {mode!r}",
                         "add '--dataloader-mode rebatched', or leave it out")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
