"""The backend's probe and its inference session."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any, Dict, Mapping, Optional, Sequence, Tuple

import numpy
import onnxruntime  # a backend's engine is loaded when it is used

from ipucnn.core.errors import IpucnnError, UnsupportedNetworkError, UsageError
from ipucnn.core.execution.backend import InferenceSession, Probe
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.machine import thread_count, usable_cores
from ipucnn.onnx.engine_base import ArraySession, Graph, OnnxBackend, filled
from ipucnn.onnx.float16 import in_bfloat16, in_float16
from ipucnn.plugins.backends._calls import divided, measured_images
from ipucnn.plugins.backends._gpus import of_instance
from ipucnn.plugins.backends.onnxruntime import stored_session
from ipucnn.plugins.backends.onnxruntime.options import OnnxRuntimeOptions
from ipucnn.plugins.backends.onnxruntime.target import TARGET

_CPU = 15
"""Preference for `--backend auto` on a CPU; on CUDA that of its record is used."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


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
            return _described(_device(self.options.device), half)
        except UsageError as error:
            return Probe(usable=False, reason=error.message, remedy=error.hint)

    def session(self, graph: Graph, plan: ExecutionPlan) -> InferenceSession:
        """Create an inference session; see `OnnxBackend.session`."""
        return OnnxRuntimeSession(graph, plan, *_device(self.options.device), self.options)

    def variants(self, plan: ExecutionPlan) -> Sequence[Mapping[str, Any]]:
        """Return images per call, and threads without spinning; on a GPU only the given options."""
        if _device(self.options.device)[0] != "cpu":
            return ({},)
        sizes = measured_images(plan.micro_batch, plan.preprocessing.input_size)
        found = [{"images_per_call": size, "spinning": True} for size in sizes]
        return [*found, {"images_per_call": sizes[0], "spinning": False}] \
            if thread_count() > 1 else found


def _device(wanted: Optional[str]) -> Tuple[str, int]:
    """Return the kind and the number of the device called `wanted`, or of the best one."""
    there = onnxruntime.get_available_providers()
    wanted = of_instance(wanted)
    name, _, index = (wanted or (
        "cuda" if _PROVIDERS["cuda"] in there and _starts("cuda") else "cpu")).partition(":")
    if name not in _PROVIDERS or (index and not index.isdecimal()):
        raise UsageError(f"the onnxruntime backend has no device {wanted!r}",
                         "devices: cpu, cuda, cuda:N")
    if _PROVIDERS[name] not in there:
        raise UsageError(f"there is no device {wanted!r} here: this ONNX Runtime is built without "
                         "CUDA", "pip install onnxruntime-gpu, or use '--device cpu'")
    if name == "cuda" and not _starts(name, int(index or 0)):
        raise UsageError(f"ONNX Runtime cannot use device {wanted or name!r}",
                         "check the driver, CUDA and cuDNN with 'ipucnn doctor --deep', or use "
                         "'--device cpu'")
    return name, int(index or 0)


@lru_cache(maxsize=None)
def _starts(name: str, index: int = 0) -> bool:
    """Return whether a provider works; built-in providers are listed even without a device."""
    from onnx import TensorProto, helper

    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "probe", value[:1],
                              value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    onnxruntime.set_default_logger_severity(4)  # suppresses messages about the missing driver
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[
            (_PROVIDERS[name], {"device_id": index})])
    except Exception:  # its exceptions have no common base
        return False
    finally:
        onnxruntime.set_default_logger_severity(2)
    return bool(session.get_providers()[0] == _PROVIDERS[name])


def _described(device: Tuple[str, int], half: bool) -> Probe:
    versions = {"onnxruntime": onnxruntime.__version__}
    if device[0] == "cuda":
        return Probe(usable=True, device=f"CUDA device {device[1]}", versions=versions,
                     half="float16", precision="16.16")
    note = ("ONNX Runtime computes in float32 on a CPU: half precision rounds the weights to "
            "bfloat16")
    return Probe(usable=True, device=f"CPU, {usable_cores()} cores", versions=versions,
                 half="bfloat16", notes=(note,) if half else (), preference=_CPU)


class OnnxRuntimeSession(ArraySession):
    """Calls take a micro-batch or a part of it; replicas share the device."""

    def __init__(self, graph: Graph, plan: ExecutionPlan, kind: str, index: int,
                 options: OnnxRuntimeOptions) -> None:
        spinning = options.spinning
        if spinning is not None and kind != "cpu":
            flag = "--spinning" if spinning else "--no-spinning"
            raise UsageError(f"'{flag}' is for the threads of a CPU, and the device is "
                             f"{kind}", "leave it out, or use '--device cpu'")
        plan = divided(plan, graph.input_size, options.images_per_call, kind == "cpu",
                       graph.batch)
        self.samples_per_call = plan.micro_batch
        self._graph = graph
        self._plan = plan
        self._type = graph.input_type
        emulated = plan.half and kind == "cpu"
        if plan.half and not graph.half:
            graph.proto = (in_bfloat16 if emulated else in_float16)(graph.proto)
        self._provider: Tuple[str, Dict[str, Any]] = (
            # TensorFloat-32 has 10 bits of fraction, which is not single precision
            _PROVIDERS[kind], {"device_id": index, "use_tf32": int(plan.half)}
            if kind == "cuda" else {})
        self._spinning = spinning is not False
        self._session: Any = None
        self._synthetic: Any = None
        self.facts: Dict[str, Any] = {
            "weights_type": ("float32" if not plan.half else "float16" if graph.half or not emulated
                             else "bfloat16"),
            "arithmetic": "float16" if plan.half and not emulated else "float32",
            "provider": self._provider[0], "threads": thread_count(),
            "images_per_call": plan.micro_batch}
        if kind == "cpu":
            self.facts["spinning"] = spinning is not False

    def compile(self) -> float:
        """Optimise the graph; to warm up, execute one call so that buffers are allocated."""
        started = time.perf_counter()
        try:
            self._session = self._loaded()
        except Exception as error:  # its exceptions have no other common base
            raise _refused(error) from error
        if self._session.get_providers()[0] != self._provider[0]:
            raise IpucnnError(f"ONNX Runtime cannot use {self._provider[0]} here",
                              "check the driver and the CUDA libraries, or use '--device cpu'")
        self._output = self._session.get_outputs()[0].name
        if self._plan.synthetic or self.warm_up:
            self._synthetic = self._graph.example(self._plan)
            self._run(self._synthetic)
        return time.perf_counter() - started

    def _loaded(self) -> onnxruntime.InferenceSession:
        stored = self._graph.stored()
        if isinstance(stored, str) and self._provider[0] == _PROVIDERS["cpu"]:
            return stored_session.session(stored, self._options, self._provider)
        return onnxruntime.InferenceSession(stored, self._options(), providers=[self._provider])

    def _options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = thread_count()
        options.add_session_config_entry("session.intra_op.allow_spinning",
                                         str(int(self._spinning)))
        options.log_severity_level = 3  # errors only; other messages are for its developers
        return options

    def classify(self, images: Optional[numpy.ndarray[Any, Any]]) -> numpy.ndarray[Any, Any]:
        """Classify up to a micro-batch; see `ArraySession.classify`."""
        if images is None:
            return self._run(self._synthetic)
        # a file may have one batch size
        return self._run(filled(images, self._graph.batch or 0))[:len(images)]

    def close(self) -> None:
        """Release the graph and the engine."""
        self._session = self._synthetic = None

    def _run(self, images: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
        fed = numpy.ascontiguousarray(images, self._type)
        try:
            logits = self._session.run([self._output], {self._graph.input_name: fed})[0]
        except Exception as error:
            raise _refused(error) from error
        return numpy.asarray(logits, numpy.float32)


def _refused(error: Exception) -> Exception:
    """Return the error to report for an exception of the engine."""
    if not type(error).__module__.startswith("onnxruntime"):
        return error
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "alloc" in text.lower() or "memory" in text.lower():
        return IpucnnError(f"ONNX Runtime is out of memory: {text}", "use a smaller '--batch-size'")
    return UnsupportedNetworkError(
        f"ONNX Runtime refuses the network: {text}",
        "try another backend, or export it with another '--opset'", exit_code=1)
