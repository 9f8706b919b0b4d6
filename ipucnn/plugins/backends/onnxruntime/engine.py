"""The backend's probe, and creation of its sessions."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.backend import InferenceSession, Probe
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.machine import usable_cores
from ipucnn.onnx.engine_base import OnnxBackend
from ipucnn.onnx.engine_graph import Graph
from ipucnn.onnx.runtime_library import onnxruntime
from ipucnn.plugins.backends._calls import measured_calls, measured_images
from ipucnn.plugins.backends._threads import measured_threads, threads_of
from ipucnn.plugins.backends.onnxruntime.devices import picked
from ipucnn.plugins.backends.onnxruntime.inference import OnnxRuntimeSession
from ipucnn.plugins.backends.onnxruntime.options import OnnxRuntimeOptions
from ipucnn.plugins.backends.onnxruntime.target import TARGET

_FEW = 4
"""Number of threads up to which calls that all of them share are not measured: such a call is at
most 2 % faster than one call per thread, and a quarter slower in some processes."""

_CPU = 15
"""Preference for `--backend auto` on a CPU; on CUDA that of its record is used."""


class OnnxRuntimeBackend(OnnxBackend):
    """Runs inference plans on CPU or CUDA with ONNX Runtime."""

    target = TARGET
    dynamic_batch = runs_files = True

    def __init__(self, options: Optional[OnnxRuntimeOptions] = None) -> None:
        self.options = options or OnnxRuntimeOptions()

    def probe(self) -> Probe:
        """Describe the selected device, or the best one."""
        return self._probe(half=False)

    def probe_for(self, plan: ExecutionPlan) -> Probe:
        """Describe the selected device, or the best one, for a plan."""
        return self._probe(plan.half)

    def _probe(self, half: bool) -> Probe:
        try:
            return _described(picked(self.options.device), half)
        except UsageError as error:
            return Probe(usable=False, reason=error.message, remedy=error.hint)

    def session(self, graph: Graph, plan: ExecutionPlan) -> InferenceSession:
        """Create an inference session; see `OnnxBackend.session`."""
        return OnnxRuntimeSession(graph, plan, *picked(self.options.device), self.options)

    def variants(self, plan: ExecutionPlan) -> Sequence[Mapping[str, Any]]:
        """Return numbers of images per call and of calls in flight, and threads without spinning.

        Of most calls, each is computed by one thread. With many threads, one call that all of them
        compute is also measured, but not the numbers between. On a GPU, only the given options are.
        """
        if picked(self.options.device)[0] != "cpu":
            return ({},)
        input_size = plan.preprocessing.input_size
        sizes = measured_images(plan.micro_batch, input_size)
        threads, every = threads_of(self.options.threads), measured_threads(self.options.threads)
        found: List[Dict[str, Any]] = [
            {"images_per_call": size, "requests": count, "spinning": True}
            for size, count in measured_calls(sizes, threads, input_size, most_or_one=True)]
        if threads > _FEW:
            found.append({"images_per_call": sizes[0], "requests": 1, "spinning": False})
        elif threads > 1:
            found = [one for one in found if one["requests"] > 1] or found
        if every:
            found.append({**found[0], "requests": 2 * every, "threads": every})
        return found


def _described(device: Tuple[str, int], half: bool) -> Probe:
    versions = {"onnxruntime": onnxruntime.__version__}
    if device[0] == "cuda":
        return Probe(usable=True, device=f"CUDA device {device[1]}", versions=versions,
                     half="float16", precision="16.16")
    note = ("ONNX Runtime computes in float32 on a CPU: half precision rounds the weights to "
            "bfloat16")
    return Probe(usable=True, device=f"CPU, {usable_cores()} cores", versions=versions,
                 half="bfloat16", notes=(note,) if half else (), preference=_CPU)
