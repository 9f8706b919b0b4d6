"""The backend's probe, and creation of its sessions."""

from __future__ import annotations

from typing import Any, Mapping, Optional, Sequence

import ncnn  # a backend's engine is loaded when it is used

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.backend import InferenceSession, Probe
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.machine import usable_cores
from ipucnn.onnx.engine_base import OnnxBackend
from ipucnn.onnx.engine_graph import Graph
from ipucnn.plugins.backends._threads import measured_threads, threads_of
from ipucnn.plugins.backends.ncnn.inference import NcnnSession, concurrent
from ipucnn.plugins.backends.ncnn.options import NcnnOptions
from ipucnn.plugins.backends.ncnn.target import TARGET


class NcnnBackend(OnnxBackend):
    """Runs inference plans on a CPU with ncnn."""

    target = TARGET
    dynamic_batch = runs_files = True

    def __init__(self, options: Optional[NcnnOptions] = None) -> None:
        self.options = options or NcnnOptions()

    def probe(self) -> Probe:
        """Describe the CPU."""
        try:
            _check_device(self.options.device)
        except UsageError as error:
            return Probe(usable=False, reason=error.message, remedy=error.hint)
        notes = () if concurrent() else (
            f"ncnn {ncnn.__version__} computes one image at a time, with all threads; releases "
            "since 1.0.20261020 compute one per thread, which is faster",)
        return Probe(usable=True, device=f"CPU, {usable_cores()} cores", notes=notes,
                     versions={"ncnn": ncnn.__version__})

    def session(self, graph: Graph, plan: ExecutionPlan) -> InferenceSession:
        """Create an inference session; see `OnnxBackend.session`."""
        _check_device(self.options.device)
        # a caller that waits for each image has all threads compute it
        threads = threads_of(self.options.threads, openmp=True)
        usual = min(threads, plan.micro_batch * plan.calls_in_flight) \
            if concurrent() else 1
        return NcnnSession(graph, plan, self.options.requests or usual, threads)

    def variants(self, plan: ExecutionPlan) -> Sequence[Mapping[str, Any]]:  # noqa: ARG002
        """Return numbers of images in flight: one per thread, and one that all threads compute."""
        threads = threads_of(self.options.threads, openmp=True)
        every = measured_threads(self.options.threads)
        found = [{"requests": count} for count in (
            (threads, 1) if threads > 1 and concurrent() else (1,))]
        if every:
            found.append({"requests": every if concurrent() else 1, "threads": every})
        return found


def _check_device(wanted: Optional[str]) -> None:
    if wanted not in (None, "cpu"):
        raise UsageError(f"the ncnn backend has no device {wanted!r}", "devices: cpu")
