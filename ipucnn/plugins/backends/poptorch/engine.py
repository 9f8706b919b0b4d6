"""The backend's probe, and creation of its sessions."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Sequence

import torch  # a backend's engine is loaded when it is used

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.backend import Backend, InferenceSession, Probe
from ipucnn.core.execution.launching import launched
from ipucnn.core.execution.losses import unsupported
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import TrainingSession, TrainingSetup
from ipucnn.plugins.backends._ipu.plans import (
    EMULATED,
    check_count,
    check_target,
    check_training,
    check_transfers,
    most_ipus,
)
from ipucnn.plugins.backends._ipu.sdk import first_line
from ipucnn.plugins.backends._options import check_proportions
from ipucnn.plugins.backends.poptorch import POPRUN
from ipucnn.plugins.backends.poptorch.options import PopTorchOptions
from ipucnn.plugins.backends.poptorch.sdk import POPTORCH, emulated

_WITHOUT_HARDWARE = ("set POPTORCH_IPU_MODEL=1 to emulate an IPU, or compile for one with "
                     "'--offline-target-ipu-version 2 --compile-only'")


class PopTorchBackend(Backend):
    """Runs plans on IPU hardware or the IPU model, and compiles for offline targets."""

    def __init__(self, options: Optional[PopTorchOptions] = None) -> None:
        self.options = options or PopTorchOptions()

    def probe(self) -> Probe:
        """Describe the IPUs of this machine, or the IPU model where POPTORCH_IPU_MODEL is set.

        A machine with PopTorch and no IPU is only usable with an offline target.
        """
        try:
            sdk = POPTORCH.load()
        except UnavailableError as error:
            return Probe(usable=False, reason=error.message, remedy=error.hint)
        versions: Dict[str, str] = {"poptorch": sdk.__version__, "torch": torch.__version__}
        if self.options.offline_target_ipu_version is not None:
            device = f"offline target, IPU version {self.options.offline_target_ipu_version}"
        elif emulated():
            device = EMULATED
        else:
            try:
                count = most_ipus(sdk.ipuHardwareIsAvailable)
                version = sdk.ipuHardwareVersion() if count else 0
            except Exception as error:  # the driver below may fail in any way; a probe never does
                return Probe(usable=False, versions=versions, remedy=_WITHOUT_HARDWARE,
                             reason=f"the IPU driver failed: {first_line(error)}")
            if not count:
                return Probe(usable=False, versions=versions, remedy=_WITHOUT_HARDWARE,
                             reason="this machine has no IPU")
            device = f"IPU version {version}, up to {count} in a program"
        return Probe(usable=True, device=device, versions=versions, half="float16",
                     precision="16.16",
                     notes=POPTORCH.newer_note(sdk))

    def variants(self, plan: ExecutionPlan) -> Sequence[Mapping[str, Any]]:  # noqa: ARG002
        """Return no variants, because compilation takes minutes and the device is exclusive."""
        return ()

    def inference(self, model: torch.nn.Module, plan: ExecutionPlan,
                  input_size: int) -> InferenceSession:
        """Create an inference session; see `Backend.inference`.

        Raises:
            UnavailableError: PopTorch or IPUs are missing on this machine.
        """
        self._check(plan, POPTORCH.load())
        from ipucnn.plugins.backends.poptorch.inference import PopTorchInferenceSession

        return PopTorchInferenceSession(model, plan, input_size, self.options)

    def training(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int) -> TrainingSession:
        """Create a training session; see `Backend.training`.

        Raises:
            UnavailableError: PopTorch or IPUs are missing on this machine.
            UsageError: the device does not support the plan or an option.
        """
        sdk = POPTORCH.load()
        if not setup.loss.traceable:
            raise unsupported("poptorch", setup.loss, "the loss is compiled with the model, and "
                              "this one cannot be traced; '--loss cross-entropy' can")
        check_training(plan, setup, self.options)
        self._check(plan, sdk)
        from ipucnn.plugins.backends.poptorch.training import PopTorchTrainingSession

        return PopTorchTrainingSession(model, plan, setup, input_size, self.options)

    def _check(self, plan: ExecutionPlan, sdk: Any) -> None:
        """Reject a plan that cannot be executed here, before compilation."""
        check_proportions(self.options.available_memory_proportion, plan.stages)
        check_target(plan, self.options, emulation="the IPU model" if emulated() else "",
                     remedy="unset POPTORCH_IPU_MODEL, or leave the option out")
        launch = launched()
        if plan.instances > 1 and launch is not None and launch.launcher != POPRUN:
            raise UsageError(f"{launch.launcher} started {plan.instances} instances, and PopTorch "
                             f"shares IPUs only between those of {POPRUN!r}",
                             f"start the command with {POPRUN!r}")
        offline = self.options.offline_target_ipu_version is not None
        check_count(plan, None if offline or emulated() else sdk.ipuHardwareIsAvailable)
        check_transfers(plan, self.options)
