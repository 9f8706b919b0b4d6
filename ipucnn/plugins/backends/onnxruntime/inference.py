"""The inference session: an optimised graph on one device."""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Deque, Dict, Optional, Sequence, Tuple

import numpy

from ipucnn.core.contention import busy
from ipucnn.core.errors import (
    IpucnnError,
    OutOfMemoryError,
    UnsupportedNetworkError,
    UsageError,
)
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.onnx import runtime_faults
from ipucnn.onnx.engine_base import ArraySession, filled
from ipucnn.onnx.engine_graph import Graph
from ipucnn.onnx.float16 import in_bfloat16, in_float16
from ipucnn.onnx.runtime_library import onnxruntime
from ipucnn.plugins.backends._calls import divided
from ipucnn.plugins.backends._threads import threads_of
from ipucnn.plugins.backends.onnxruntime import stored_session
from ipucnn.plugins.backends.onnxruntime.devices import PROVIDERS
from ipucnn.plugins.backends.onnxruntime.options import OnnxRuntimeOptions


class OnnxRuntimeSession(ArraySession):
    """Calls take a micro-batch or a part of it; replicas share the device."""

    def __init__(self, graph: Graph, plan: ExecutionPlan, kind: str, index: int,
                 options: OnnxRuntimeOptions) -> None:
        if kind != "cpu":
            _check_device(options, kind)
        plan = divided(plan, graph.input_size, options.images_per_call, kind == "cpu",
                       graph.batch)
        self.samples_per_call = plan.micro_batch
        self._graph = graph
        self._plan = plan
        self._type = graph.input_type
        emulated = plan.half and kind == "cpu"
        # what may help where the engine refuses the network
        self._ways = [way for way, may_help in (
            ("--precision full", plan.half and not emulated and not graph.half),
            ("--images-per-call 1", graph.batch is None and plan.micro_batch > 1)) if may_help]
        if plan.half and not graph.half:
            graph.proto = (in_bfloat16 if emulated else in_float16)(graph.proto)
        self._provider: Tuple[str, Dict[str, Any]] = (
            # TensorFloat-32 has 10 bits of fraction, which is not single precision
            PROVIDERS[kind], {"device_id": index, "use_tf32": int(plan.half)}
            if kind == "cuda" else {})
        self._spinning = kind != "cpu" or (
            not busy() if options.spinning is None else options.spinning)
        self.in_flight = options.requests or 1
        self._threads = threads_of(options.threads)
        self._together = min(self.in_flight, self._threads)
        self._callers: Optional[ThreadPoolExecutor] = None
        self._started: Deque[Future[Any]] = deque(maxlen=self.in_flight)
        self._how = onnxruntime.RunOptions()
        self._session: Any = None
        self._synthetic: Any = None
        self.facts: Dict[str, Any] = {
            "weights_type": ("float32" if not plan.half else "float16" if graph.half or not emulated
                             else "bfloat16"),
            "arithmetic": "float16" if plan.half and not emulated else "float32",
            "provider": self._provider[0], "threads": self._threads,
            "images_per_call": plan.micro_batch, "requests": self.in_flight}
        if kind == "cpu":
            self.facts["spinning"] = self._spinning

    def compile(self) -> float:
        """Optimise the graph; to warm up, execute one call so that buffers are allocated."""
        started = time.perf_counter()
        try:
            self._session = self._loaded()
        except Exception as error:  # its exceptions have no other common base
            raise _refused(error, self._ways) from error
        if self._session.get_providers()[0] != self._provider[0]:
            raise IpucnnError(f"ONNX Runtime cannot use {self._provider[0]} here",
                              "check the driver and the CUDA libraries, or use '--device cpu'")
        self._output = self._session.get_outputs()[0].name
        if self.in_flight > 1:
            self._callers = ThreadPoolExecutor(self._together, thread_name_prefix="ipucnn-call")
        if self._plan.synthetic or self.warm_up:
            self._synthetic = self._graph.example(self._plan)
            self._run(self._synthetic)
        return time.perf_counter() - started

    def _loaded(self) -> onnxruntime.InferenceSession:
        stored = self._graph.stored()
        if isinstance(stored, str) and self._provider[0] == PROVIDERS["cpu"]:
            return stored_session.session(stored, self._options, self._provider)
        return onnxruntime.InferenceSession(stored, self._options(), providers=[self._provider])

    def _options(self) -> onnxruntime.SessionOptions:
        options = onnxruntime.SessionOptions()
        # the threads that call compute, too; they share the engine's other ones
        options.intra_op_num_threads = self._threads - self._together + 1
        options.add_session_config_entry("session.intra_op.allow_spinning",
                                         str(int(self._spinning)))
        options.log_severity_level = 3  # errors only; other messages are for its developers
        runtime_faults.avoid(options)
        return options

    def start(self, images: Any) -> Callable[[], Any]:
        """Start a call; see `InferenceSession.start`."""
        if self._callers is None or hasattr(images, "numpy"):  # tensors: see `ArraySession`
            return super().start(images)
        self._started.append(self._callers.submit(self.classify, images))
        return self._started[-1].result

    def classify(self, images: Optional[numpy.ndarray[Any, Any]]) -> numpy.ndarray[Any, Any]:
        """Classify up to a micro-batch; see `ArraySession.classify`."""
        if images is None:
            return self._run(self._synthetic)
        # a file may have one batch size
        return self._run(filled(images, self._graph.batch or 0))[:len(images)]

    def close(self) -> None:
        """Release the graph and the engine; end calls in flight after their current operator."""
        if self._callers is not None:
            self._how.terminate = True
            for call in self._started:
                call.cancel()
            self._started.clear()
            self._callers.shutdown()
            self._callers, self._how = None, onnxruntime.RunOptions()
        self._session = self._synthetic = None

    def _run(self, images: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
        fed = numpy.ascontiguousarray(images, self._type)
        try:
            logits = self._session.run([self._output], {self._graph.input_name: fed}, self._how)[0]
        except Exception as error:
            raise _refused(error, self._ways) from error
        return numpy.asarray(logits, numpy.float32)


def _check_device(options: OnnxRuntimeOptions, kind: str) -> None:
    """Check that no option is given that only a CPU has."""
    for flag, given in (("--spinning", options.spinning is True),
                        ("--no-spinning", options.spinning is False),
                        ("--threads", options.threads is not None),
                        ("--requests", options.requests is not None)):
        if given:
            raise UsageError(f"'{flag}' is for the threads of a CPU, and the device is {kind}",
                             "leave it out, or use '--device cpu'")


def _refused(error: Exception, ways: Sequence[str]) -> Exception:
    """Return the error to report for an exception of the engine.

    Args:
        error: the exception.
        ways: options that may help.
    """
    if not type(error).__module__.startswith("onnxruntime"):
        return error
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "alloc" in text.lower() or "memory" in text.lower():
        return OutOfMemoryError(f"ONNX Runtime is out of memory: {text}",
                                "use a smaller '--batch-size'")
    hint = "".join(f"{way!r}, " for way in ways)
    return UnsupportedNetworkError(
        f"ONNX Runtime refuses the network: {text}",
        f"try {hint}another backend, or export it with another '--opset'", exit_code=1)
