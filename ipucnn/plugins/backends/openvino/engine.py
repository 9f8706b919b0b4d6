"""The backend's probe, and creation of its sessions."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence, Tuple

from ipucnn.core.errors import UnavailableError, UsageError
from ipucnn.core.execution.backend import InferenceSession, Probe
from ipucnn.core.execution.calibration import Calibration
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.machine import usable_cores
from ipucnn.onnx.engine_base import OnnxBackend
from ipucnn.onnx.engine_graph import Graph
from ipucnn.plugins.backends._calls import measured_calls, measured_images
from ipucnn.plugins.backends._threads import measured_threads, threads_of
from ipucnn.plugins.backends.openvino import INSTALL
from ipucnn.plugins.backends.openvino.devices import NAMES, half_type, picked
from ipucnn.plugins.backends.openvino.inference import OpenVinoSession
from ipucnn.plugins.backends.openvino.library import openvino
from ipucnn.plugins.backends.openvino.options import OpenVinoOptions
from ipucnn.plugins.backends.openvino.target import TARGET

if TYPE_CHECKING:
    import torch


@lru_cache(maxsize=None)
def _core() -> openvino.Core:
    """Return the single core of this process, which exists until the process ends.

    OpenVINO's CPU plugin sets a signal stack for the thread that loads it, and frees this memory
    when the core is destroyed, in any thread: the next signal in the first thread would then crash
    the process.
    """
    return openvino.Core()


class OpenVinoBackend(OnnxBackend):
    """Runs inference plans with OpenVINO."""

    target = TARGET
    dynamic_batch = runs_files = True

    def __init__(self, options: Optional[OpenVinoOptions] = None) -> None:
        self.options = options or OpenVinoOptions()
        self._core = _core()

    def probe(self) -> Probe:
        """Describe the selected device; the CPU by default."""
        return self._probe(half=False, quantises=False)

    def probe_for(self, plan: ExecutionPlan) -> Probe:
        """Describe the selected device, the CPU by default, for a plan."""
        return self._probe(plan.half, plan.precision == "int8")

    def _probe(self, half: bool, quantises: bool) -> Probe:
        try:
            device = picked(self._core, self.options.device)
            if quantises:
                _check_nncf()
        except UsageError as error:
            return Probe(usable=False, reason=error.message, remedy=error.hint)
        return self._described(device, half)

    def variants(self, plan: ExecutionPlan) -> Sequence[Mapping[str, Any]]:
        """Return numbers of images per call, and of calls in flight."""
        sizes, every = [plan.micro_batch], None
        input_size = plan.preprocessing.input_size
        if picked(self._core, self.options.device) == "CPU":
            sizes = measured_images(plan.micro_batch, input_size)
            every = measured_threads(self.options.threads)
        threads = threads_of(self.options.threads)
        found = [{"images_per_call": size, "requests": count}
                 for size, count in measured_calls(sizes, threads, input_size)]
        if every:
            found.append({"images_per_call": sizes[0], "requests": 2 * every, "threads": every})
        return found

    def session(self, graph: Graph, plan: ExecutionPlan) -> InferenceSession:
        """Create an inference session; see `OnnxBackend.session`."""
        return OpenVinoSession(self._core, graph, plan, self.options)

    def quantised(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int,
                  calibration: Calibration) -> InferenceSession:
        """Create an inference session in 8-bit integers; see `Backend.quantised`.

        Raises:
            UsageError: OpenVINO does not support an operator of the network, or NNCF is missing.
        """
        _check_nncf()
        return OpenVinoSession(self._core, self.graph(model, plan, input_size), plan, self.options,
                               calibration)

    def _described(self, device: str, half: bool) -> Probe:
        kind = half_type(self._core, device)
        notes: Tuple[str, ...] = ()
        if half and not kind:
            notes = (f"OpenVINO has no half-precision arithmetic on this {device}: half precision "
                     "rounds the weights to bfloat16 and computes in float32",)
        return Probe(
            usable=True, versions={"openvino": openvino.__version__}, notes=notes,
            device=f"CPU, {usable_cores()} cores" if device == "CPU" else
            str(self._core.get_property(device, "FULL_DEVICE_NAME")),
            half=NAMES[kind or "bf16"], precision="16.16" if kind else "32.32")


def _check_nncf() -> None:
    if importlib.util.find_spec("nncf") is None:
        raise UnavailableError("8-bit integers need NNCF, which is missing", INSTALL)
