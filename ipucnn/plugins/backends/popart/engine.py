"""The backend's probe, and creation of its sessions."""

from __future__ import annotations

from typing import Any, Dict, Mapping, Optional, Sequence

import torch  # a backend's engine is loaded when it is used

from ipucnn.core.errors import UnavailableError
from ipucnn.core.execution.backend import InferenceSession, Probe
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import TrainingSession, TrainingSetup
from ipucnn.onnx.engine_base import OnnxBackend
from ipucnn.onnx.engine_graph import Graph
from ipucnn.plugins.backends._ipu.plans import (
    EMULATED,
    check_training,
    check_transfers,
    most_ipus,
)
from ipucnn.plugins.backends._ipu.sdk import first_line
from ipucnn.plugins.backends._options import check_proportions
from ipucnn.plugins.backends.popart.losses import loss_form
from ipucnn.plugins.backends.popart.operators import TARGET
from ipucnn.plugins.backends.popart.options import PopArtOptions
from ipucnn.plugins.backends.popart.recomputation import check_recomputation
from ipucnn.plugins.backends.popart.sdk import POPART, load

_WITHOUT_HARDWARE = ("emulate an IPU with '--ipu-model', or compile for one with "
                     "'--offline-target-ipu-version 2 --compile-only'")


class PopArtBackend(OnnxBackend):
    """Runs plans on IPU hardware or the IPU model, and compiles for offline targets."""

    target = TARGET

    def __init__(self, options: Optional[PopArtOptions] = None) -> None:
        self.options = options or PopArtOptions()

    def probe(self) -> Probe:
        """Describe the IPUs of this machine, the IPU model, or the offline target.

        A machine with PopART and no IPU is only usable with the last two.
        """
        try:
            sdk = load()
        except UnavailableError as error:
            return Probe(usable=False, reason=error.message, remedy=error.hint)
        from ipucnn.plugins.backends.popart.devices import available, needs_hardware

        versions: Dict[str, str] = {"popart": POPART.version(sdk)}
        if needs_hardware(self.options):
            try:
                count = most_ipus(available)
            except Exception as error:  # the driver below may fail in any way; a probe never does
                return Probe(usable=False, versions=versions, remedy=_WITHOUT_HARDWARE,
                             reason=f"the IPU driver failed: {first_line(error)}")
            if not count:
                return Probe(usable=False, versions=versions, remedy=_WITHOUT_HARDWARE,
                             reason="this machine has no IPU")
            device = f"IPU, up to {count} in a program"
        elif self.options.ipu_model:
            device = EMULATED
        else:
            device = f"offline target, IPU version {self.options.offline_target_ipu_version}"
        return Probe(usable=True, device=device, versions=versions, half="float16",
                     precision="16.16",
                     notes=POPART.newer_note(sdk))

    def variants(self, plan: ExecutionPlan) -> Sequence[Mapping[str, Any]]:  # noqa: ARG002
        """Return no variants, because compilation takes minutes and the device is exclusive."""
        return ()

    def inference(self, model: torch.nn.Module, plan: ExecutionPlan,
                  input_size: int) -> InferenceSession:
        """Create an inference session; see `Backend.inference`.

        Raises:
            UnavailableError: PopART or IPUs are missing on this machine.
        """
        self._check(plan)
        return super().inference(model, plan, input_size)

    def session(self, graph: Graph, plan: ExecutionPlan) -> InferenceSession:
        """Create an inference session; see `OnnxBackend.session`."""
        from ipucnn.plugins.backends.popart.inference import PopArtInferenceSession

        return PopArtInferenceSession(graph, plan, self.options)

    def training(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int) -> TrainingSession:
        """Create a training session; see `Backend.training`.

        Raises:
            UnavailableError: PopART or IPUs are missing on this machine.
            UsageError: the device does not support the plan or an option.
        """
        self._check(plan)
        _check_training(plan, setup, self.options)
        from ipucnn.plugins.backends.popart.training import PopArtTrainingSession

        return PopArtTrainingSession(model, plan, setup, input_size, self.options)

    def _check(self, plan: ExecutionPlan) -> None:
        """Reject a plan that cannot be executed here, before its graph is built."""
        load()
        from ipucnn.plugins.backends.popart.devices import check_devices

        check_proportions(self.options.available_memory_proportion, plan.stages)
        check_devices(plan, self.options)
        check_transfers(plan, self.options)


def _check_training(plan: ExecutionPlan, setup: TrainingSetup, options: PopArtOptions) -> None:
    loss_form(setup.loss)
    check_training(plan, setup, options)
    check_recomputation(plan)
