"""The backend itself: what it finds here, and which plans it takes."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import Tuple

import openvino  # noqa: TID253 - a backend's engine is loaded when it is used
import torch  # noqa: TID253

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan, InferenceSession, Probe
from ipucnn.core.machine import usable_cores
from ipucnn.inference.calibration import Calibration
from ipucnn.onnx.backend import Graph, OnnxBackend
from ipucnn.plugins.backends.openvino import INSTALL
from ipucnn.plugins.backends.openvino.devices import NAMES, half_type, picked
from ipucnn.plugins.backends.openvino.inference import OpenVinoSession
from ipucnn.plugins.backends.openvino.target import TARGET


@lru_cache(maxsize=None)
def _core() -> openvino.Core:
    """Return the one core of this process, which stays until the process ends.

    OpenVINO's plugin for CPUs gives the thread that loads it a stack for signals, and gives back
    that memory with the core, in whichever thread the core ends: the first thread's next signal
    would end the process, without a word.
    """
    return openvino.Core()


class OpenVinoBackend(OnnxBackend):
    """Runs inference plans with OpenVINO."""

    target = TARGET
    dynamic_batch = True

    def __init__(self) -> None:
        self._core = _core()

    def probe(self) -> Probe:
        """Describe the CPU; OpenVINO always has it."""
        return self._described("CPU")

    def probe_for(self, plan: ExecutionPlan) -> Probe:
        """Describe the device that the plan asks for."""
        try:
            device = picked(self._core, plan.option("device"))
            if plan.precision == "int8":
                _check_nncf()
        except UsageError as error:
            return Probe(usable=False, reason=error.message, remedy=error.hint)
        return self._described(device, plan.half)

    def session(self, graph: Graph, plan: ExecutionPlan) -> InferenceSession:
        """Make an inference session; see `OnnxBackend.session`."""
        return OpenVinoSession(self._core, graph, plan)

    def quantised(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int,
                  calibration: Calibration) -> InferenceSession:
        """Make an inference session in 8-bit integers; see `Backend.quantised`.

        Raises:
            UsageError: the network needs an operator that OpenVINO lacks, or NNCF is missing.
        """
        _check_nncf()
        return OpenVinoSession(self._core, self.graph(model, plan, input_size), plan, calibration)

    def _described(self, device: str, half: bool = False) -> Probe:
        kind = half_type(self._core, device)
        notes: Tuple[str, ...] = ()
        if half and not kind:
            notes = (f"OpenVINO has no half-precision arithmetic on this {device}: half precision "
                     "rounds the weights to bfloat16 and computes in float32",)
        return Probe(
            usable=True, versions={"openvino": openvino.__version__}, notes=notes,
            device=f"CPU, {usable_cores()} cores" if device == "CPU" else
            str(self._core.get_property(device, "FULL_DEVICE_NAME")),
            half=NAMES[kind or "bf16"])


def _check_nncf() -> None:
    if importlib.util.find_spec("nncf") is None:
        raise UnavailableError("8-bit integers need NNCF, which is missing", INSTALL)
