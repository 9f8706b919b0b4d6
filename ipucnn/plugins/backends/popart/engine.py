"""The backend itself: what it finds here, and which plans it takes."""

from __future__ import annotations

from typing import Dict, Optional

import torch  # noqa: TID253 - a backend's engine is loaded when it is used

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan, InferenceSession, Probe
from ipucnn.core.execution.training_session import TrainingSession, TrainingSetup
from ipucnn.onnx.backend import Graph, OnnxBackend
from ipucnn.plugins.backends.popart.operators import TARGET
from ipucnn.plugins.backends.popart.sdk import first_line, load, newer_note, version

_WITHOUT_HARDWARE = ("emulate an IPU with '--ipu-model', or compile for one with "
                     "'--offline-target-ipu-version 2 --compile-only'")


class PopArtBackend(OnnxBackend):
    """Runs plans on IPU hardware or the IPU model, and compiles for IPUs that are elsewhere."""

    target = TARGET

    def probe(self) -> Probe:
        """Describe the IPUs of this machine.

        A machine with PopART and no IPU is not usable, except for plans that emulate one or only
        compile.
        """
        return self._probe(None)

    def probe_for(self, plan: ExecutionPlan) -> Probe:
        """Describe what `plan` is executed on."""
        return self._probe(plan)

    def inference(self, model: torch.nn.Module, plan: ExecutionPlan,
                  input_size: int) -> InferenceSession:
        """Make an inference session; see `Backend.inference`.

        Raises:
            UnavailableError: there is no PopART here, or not as many IPUs as the plan needs.
        """
        _check(plan)
        return super().inference(model, plan, input_size)

    def session(self, graph: Graph, plan: ExecutionPlan) -> InferenceSession:
        """Make an inference session; see `OnnxBackend.session`."""
        from ipucnn.plugins.backends.popart.inference import PopArtInferenceSession

        return PopArtInferenceSession(graph, plan)

    def training(self, model: torch.nn.Module, plan: ExecutionPlan, setup: TrainingSetup,
                 input_size: int) -> TrainingSession:
        """Make a training session; see `Backend.training`.

        Raises:
            UnavailableError: there is no PopART here, or not as many IPUs as the plan needs.
            UsageError: something that the device cannot do.
        """
        _check(plan)
        _check_training(plan, setup)
        from ipucnn.plugins.backends.popart.training import PopArtTrainingSession

        return PopArtTrainingSession(model, plan, setup, input_size)

    def _probe(self, plan: Optional[ExecutionPlan]) -> Probe:
        try:
            sdk = load()
        except UnavailableError as error:
            return Probe(usable=False, reason=error.message, remedy=error.hint)
        from ipucnn.plugins.backends.popart.devices import most_ipus, needs_hardware

        versions: Dict[str, str] = {"popart": version(sdk)}
        if plan is None or needs_hardware(plan):
            try:
                count = most_ipus()
            except Exception as error:  # the driver below may fail in any way; a probe never does
                return Probe(usable=False, versions=versions, remedy=_WITHOUT_HARDWARE,
                             reason=f"the IPU driver failed: {first_line(error)}")
            if not count:
                return Probe(usable=False, versions=versions, remedy=_WITHOUT_HARDWARE,
                             reason="this machine has no IPU")
            device = f"IPU, up to {count} in a program"
        elif plan.option("ipu_model"):
            device = "IPU model (an emulation: its speed means nothing)"
        else:
            device = f"offline target, IPU version {plan.option('offline_target_ipu_version')}"
        return Probe(usable=True, device=device, versions=versions, half="float16",
                     notes=newer_note(sdk))


def _check(plan: ExecutionPlan) -> None:
    """Refuse a plan that cannot be executed here, before its graph is made."""
    load()
    from ipucnn.plugins.backends.popart.devices import check_devices

    check_devices(plan)


def _check_training(plan: ExecutionPlan, setup: TrainingSetup) -> None:
    if setup.tolerate_non_finite:
        raise UsageError("'--skip-non-finite' has no meaning on an IPU, which has made its "
                         "update when the host sees the loss", "leave it out; "
                         "'--auto-loss-scaling' or a lower '--loss-scaling' may help")
    if setup.mix.enabled:
        raise UsageError("backend 'popart' mixes no images: '--mixup-alpha' and "
                         "'--cutmix-lambda-low' have no meaning there",
                         "leave them out, or use '--backend poptorch'")
    if plan.option("enable_optimizer_rts") and plan.replicas == 1:
        raise UsageError("'--enable-optimizer-rts' shards the optimizer's state over replicas, "
                         "and there is one", "add '--replicas', or leave it out")
    if plan.option("recompute_mode") == "manual" and plan.pipeline_splits:
        raise UsageError("'--recompute-mode manual' and pipeline splits exclude each other: "
                         "a pipeline recomputes whole stages", "use '--recompute-mode auto'")
