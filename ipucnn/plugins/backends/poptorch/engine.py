"""The backend itself: what it finds here, and which plans it takes."""

from __future__ import annotations

from typing import Any, Dict, Optional

import torch  # noqa: TID253 - a backend's engine is loaded when it is used

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.instances import Instances, launched
from ipucnn.core.execution.plan import Backend, ExecutionPlan, InferenceSession, Probe
from ipucnn.core.execution.training_session import TrainingSession, TrainingSetup
from ipucnn.plugins.backends.poptorch import THREADS
from ipucnn.plugins.backends.poptorch.sdk import emulated, first_line, load, newer_note

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
        sdk = load()
        _check_target(plan)
        _check_devices(plan, sdk)
        _check_io_tiles(plan)
        _check_loading(plan)
        from ipucnn.plugins.backends.poptorch.inference import PopTorchInferenceSession

        return PopTorchInferenceSession(model, plan, input_size)

    def training(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int) -> TrainingSession:
        """Make a training session; see `Backend.training`.

        Raises:
            UnavailableError: there is no PopTorch here, or not as many IPUs as the plan needs.
            UsageError: something that the device cannot do.
        """
        sdk = load()
        if setup.tolerate_non_finite:
            raise UsageError("'--skip-non-finite' has no meaning on an IPU, which has made its "
                             "update when the host sees the loss", "leave it out; "
                             "'--auto-loss-scaling' or a lower '--loss-scaling' may help")
        if plan.option("enable_optimizer_rts") and plan.replicas == 1:
            raise UsageError("'--enable-optimizer-rts' shards the optimizer's state over replicas, "
                             "and there is one", "add '--replicas', or leave it out")
        _check_target(plan)
        _check_devices(plan, sdk)
        _check_io_tiles(plan)
        _check_loading(plan)
        from ipucnn.plugins.backends.poptorch.training import PopTorchTrainingSession

        return PopTorchTrainingSession(model, plan, setup, input_size)

    def instances(self) -> Instances:
        """Join the other instances of `poprun`; see `Backend.instances`."""
        from ipucnn.plugins.backends.poptorch.poprun import joined

        return joined()

    def _probe(self, offline: Optional[int]) -> Probe:
        try:
            sdk = load()
        except UnavailableError as error:
            return Probe(usable=False, reason=error.message, remedy=error.hint)
        versions: Dict[str, str] = {"poptorch": sdk.__version__, "torch": torch.__version__}
        if offline is not None:
            device = f"offline target, IPU version {offline}"
        elif emulated():
            device = "IPU model (an emulation: its speed means nothing)"
        else:
            try:
                count = _most_ipus(sdk)
                version = sdk.ipuHardwareVersion() if count else 0
            except Exception as error:  # the driver below may fail in any way; a probe never does
                return Probe(usable=False, versions=versions, remedy=_WITHOUT_HARDWARE,
                             reason=f"the IPU driver failed: {first_line(error)}")
            if not count:
                return Probe(usable=False, versions=versions, remedy=_WITHOUT_HARDWARE,
                             reason="this machine has no IPU")
            device = f"IPU version {version}, up to {count} in a program"
        return Probe(usable=True, device=device, versions=versions, half="float16",
                     notes=newer_note(sdk))


def _most_ipus(sdk: Any) -> int:
    """Return how many IPUs a program can have here; they are given out in powers of two."""
    count = 0
    while count < MOST_IPUS and sdk.ipuHardwareIsAvailable(2 * count or 1):
        count = 2 * count or 1
    return count


def _check_target(plan: ExecutionPlan) -> None:
    version = plan.option("offline_target_ipu_version")
    if version is not None:
        if version not in OFFLINE_VERSIONS:
            raise UsageError(f"option '--offline-target-ipu-version': there is no IPU version "
                             f"{version}", "versions: " + ", ".join(map(str, OFFLINE_VERSIONS)))
        if emulated():
            raise UsageError("'--offline-target-ipu-version' and the IPU model exclude each other",
                             "unset POPTORCH_IPU_MODEL, or leave the option out")
        if plan.option("connection_type") is not None:
            raise UsageError("'--connection-type' has no meaning for an offline target, which has "
                             "no IPU to take", "leave it out")
        if not plan.option("compile_only"):
            raise UsageError("a model compiled for an offline target cannot be run here",
                             "add '--compile-only'")
    if plan.option("model_cache_path") and emulated():
        raise UsageError("the IPU model keeps no compiled models: '--model-cache-path' has no "
                         "meaning there", "unset POPTORCH_IPU_MODEL, or leave the option out")


def _check_devices(plan: ExecutionPlan, sdk: Any) -> None:
    if launched() is not None:
        from ipucnn.plugins.backends.poptorch.poprun import check_stages

        check_stages(plan)
    count = plan.local_devices
    need = f"{plan.local_replicas} replicas of {plan.stages} pipeline stages need {count} IPUs"
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
