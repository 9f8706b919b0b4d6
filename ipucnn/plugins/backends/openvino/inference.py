"""The inference session: a compiled model with concurrent requests."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    ContextManager,
    Dict,
    Iterator,
    List,
    Optional,
    Tuple,
)

import numpy

from ipucnn.core.errors import OutOfMemoryError, UnsupportedNetworkError
from ipucnn.core.execution.calibration import Calibration
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.files import trusted_folder
from ipucnn.onnx.engine_base import ArraySession, filled
from ipucnn.onnx.engine_graph import Graph
from ipucnn.onnx.float16 import in_bfloat16
from ipucnn.plugins.backends._calls import divided
from ipucnn.plugins.backends._threads import refuse_threads, share_cores, threads_of
from ipucnn.plugins.backends.openvino.devices import NAMES, half_type, picked
from ipucnn.plugins.backends.openvino.library import openvino
from ipucnn.plugins.backends.openvino.options import OpenVinoOptions
from ipucnn.plugins.backends.openvino.quantisation import quantise
from ipucnn.plugins.backends.openvino.quantised_cache import QuantisedCache
from ipucnn.plugins.backends.openvino.stored_model import read_model

if TYPE_CHECKING:
    import torch

    Array = numpy.ndarray[Any, Any]

_AHEAD = 2
"""Calls in flight for each that is computed, by default: the next one then begins at once."""

_FRAMES = ("Exception from", "Check ", "FrontEnd API failed", "Model wasn't fully", "Summary:")
"""Prefixes of message lines that are for OpenVINO's developers."""


class OpenVinoSession(ArraySession):
    """Computes several calls at a time, each on its share of the cores.

    A call takes a micro-batch or a part of it; replicas share the device.

    Args:
        core: of OpenVINO.
        graph: the model; changed.
        plan: what to execute.
        options: of the backend.
        calibration: images to quantise with.
    """

    def __init__(self, core: Any, graph: Graph, plan: ExecutionPlan, options: OpenVinoOptions,
                 calibration: Optional[Calibration] = None) -> None:
        self._device = picked(core, options.device)
        plan = divided(plan, graph.input_size, options.images_per_call, self._device == "CPU",
                       graph.batch)
        self._core, self._graph, self._plan, self._options = core, graph, plan, options
        self._calibration = calibration
        self.samples_per_call = plan.micro_batch
        # layers that are not quantised are as fast as the others only in half precision
        half = half_type(core, self._device) if plan.half or calibration else ""
        if plan.half and not half and not graph.half:
            graph.proto = in_bfloat16(graph.proto)
        # single precision is set explicitly, because half precision may be the default
        self._config: Dict[str, Any] = {"INFERENCE_PRECISION_HINT": half or "f32"}
        if self._device == "CPU":
            threads = self._config["INFERENCE_NUM_THREADS"] = threads_of(options.threads)
            if share_cores(threads):
                self._config["ENABLE_HYPER_THREADING"] = True
        else:
            refuse_threads(options.threads, self._device)
        if options.model_cache_path:
            self._config["CACHE_DIR"] = trusted_folder(options.model_cache_path,
                                                       "--model-cache-path")
        self._requests: List[Any] = []
        self._inputs: List[Any] = []
        self._next = 0
        weights = "int8" if calibration else "float32"
        if plan.half and not calibration:
            weights = "float16" if graph.half else NAMES[half or "bf16"]
        self.facts: Dict[str, Any] = {
            "weights_type": weights, "images_per_call": plan.micro_batch}
        if self._device == "CPU":
            self.facts["threads"] = self._config["INFERENCE_NUM_THREADS"]

    def compile(self) -> float:
        """Quantise if the plan requires it, compile, and warm up: a call with each request."""
        started = time.perf_counter()
        graph, plan, calibration = self._graph, self._plan, self._calibration
        images = graph.example(plan)
        with self._errors():
            model, stored = self._model()
            _reshape(model, graph, plan.micro_batch)
            wanted = self._options.requests
            most = wanted or plan.calls_in_flight
            compiled = self._loaded(model, most)
            count = wanted or min(most, _AHEAD * compiled.get_property(
                "OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
            self._requests = [compiled.create_infer_request() for _ in range(count)]
            self._inputs = [None] * count
            self.in_flight = count
        kind = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if calibration is not None:
            self.facts["arithmetic_of_other_layers"] = NAMES.get(kind, kind)
        self.facts.update(arithmetic="int8" if calibration else NAMES.get(kind, kind),
                          streams=compiled.get_property("NUM_STREAMS"),
                          requests=len(self._requests))
        for place in range(len(self._requests)):
            self._feed(place, images)
        if self.warm_up:
            for logits in [self._started(None) for _ in range(count)]:
                logits()
        if calibration is not None:
            full, quantised = self._compared(calibration, stored)
            self.facts["quantisation"] = calibration.report(full, quantised)
        return time.perf_counter() - started

    def start(self, images: Any) -> Callable[[], Any]:
        """Start a call; see `InferenceSession.start`."""
        if hasattr(images, "numpy"):  # tensors: see `ArraySession`
            return super().start(images)
        return self._started(images)

    def classify(self, images: Optional[Array]) -> Array:
        """Classify up to the images of a call; see `ArraySession.classify`."""
        return self._started(images)()

    def _started(self, images: Optional[Array]) -> Callable[[], Array]:
        """Start the next request; without images with those that it has."""
        place, self._next = self._next, (self._next + 1) % self.in_flight
        request = self._requests[place]
        if images is not None:
            self._feed(place, images)
        with self._errors():
            request.start_async()

        def logits() -> Array:
            with self._errors():
                request.wait()
            # a copy, because the next call writes to the same place
            output = numpy.array(request.get_output_tensor().data, numpy.float32)
            return output if images is None else output[:len(images)]

        return logits

    def close(self) -> None:
        """Release the graph and the engine; wait for requests in flight, which read the inputs."""
        for request in self._requests:
            with suppress(RuntimeError):  # reported where its result is read
                request.wait()
        self._requests = []
        self._inputs = []

    def classified(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of any number of images, uint8."""
        import torch

        from ipucnn.data.normalisation import fed

        return torch.cat([self(fed(part, self._plan))
                          for part in torch.split(images, self.samples_per_call)])

    def _feed(self, place: int, images: Array) -> None:
        """Set a request's micro-batch, which is read in place."""
        self._inputs[place] = self._array(filled(images, self._plan.micro_batch))
        self._requests[place].set_input_tensor(
            openvino.Tensor(self._inputs[place], shared_memory=True))

    def _errors(self) -> ContextManager[None]:
        return _errors(self._plan.micro_batch, self._graph.batch is None)

    def _array(self, images: Array) -> Array:
        return numpy.ascontiguousarray(images, self._graph.input_type)

    def _loaded(self, model: Any, count: int) -> Any:
        """Compile a model for at most `count` requests in flight.

        With several, OpenVINO chooses how many streams compute at a time.
        """
        return self._core.compile_model(model, self._device, {
            **self._config, "PERFORMANCE_HINT": "LATENCY" if count == 1 else "THROUGHPUT",
            "PERFORMANCE_HINT_NUM_REQUESTS": count})

    def _model(self) -> Tuple[Any, Optional[Tuple[Array, Array]]]:
        """Return the network, quantised if requested, and the logits stored with it."""
        graph, calibration = self._graph, self._calibration
        if calibration is None:
            stored = graph.stored()
            return (read_model(self._core, stored) if isinstance(stored, str)
                    else self._core.read_model(stored)), None
        self._cache = QuantisedCache.of(
            graph, calibration, f"{self._device} {self._config['INFERENCE_PRECISION_HINT']}")
        model, logits = self._cache.read(self._core)
        if model is not None:
            return model, logits
        model, size = self._core.read_model(graph.stored()), graph.batch or 1
        _reshape(model, graph, size)
        self._quantised = quantise(model, [
            self._array(part) for part in _whole_batches(calibration.calibrating, size,
                                                         self._plan)])
        return self._quantised.clone(), None

    def _compared(self, calibration: Calibration, stored: Optional[Tuple[Array, Array]],
                  ) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return the logits of the full and of the quantised network on the same images."""
        import torch

        if stored is not None:
            return torch.from_numpy(stored[0]), torch.from_numpy(stored[1])
        plan = replace(self._plan, precision="32.32")
        options = replace(self._options, requests=None)
        full = OpenVinoSession(self._core, self._graph, plan, options)
        with full:
            full.compile()
            logits = full.classified(calibration.compared)
        quantised = self.classified(calibration.compared)
        self._cache.write(self._quantised, logits.numpy(), quantised.numpy())
        return logits, quantised


def _reshape(model: Any, graph: Graph, batch: int) -> None:
    model.reshape({graph.input_name: [batch, 3, graph.input_size, graph.input_size]})


def _whole_batches(images: torch.Tensor, size: int, plan: ExecutionPlan) -> Iterator[Array]:
    """Yield images in the plan's format, repeating the first ones to fill the last batch."""
    import torch

    from ipucnn.data.normalisation import fed

    for first in range(0, len(images), size):
        yield fed(images[torch.arange(first, first + size) % len(images)], plan).numpy()


@contextmanager
def _errors(micro_batch: int, any_batch: bool) -> Iterator[None]:
    """Turn the engine's errors into one line with a hint.

    Args:
        micro_batch: images of a call.
        any_batch: whether the network should accept any number of images.
    """
    try:
        yield
    except MemoryError as error:
        raise _out_of_memory(micro_batch) from error
    except RuntimeError as error:
        if "alloc" in str(error).lower() or "out of memory" in str(error).lower():
            raise _out_of_memory(micro_batch) from error
        lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
        reasons = [line for line in lines if not line.startswith(_FRAMES)] or lines or ["no reason"]
        one = "'--images-per-call 1', " if any_batch and micro_batch > 1 else ""
        raise UnsupportedNetworkError(
            f"OpenVINO refuses the network: {reasons[0]}",
            f"try {one}another backend, or export it with another '--opset'",
            exit_code=1) from error


def _out_of_memory(micro_batch: int) -> OutOfMemoryError:
    return OutOfMemoryError(f"OpenVINO is out of memory at a micro-batch of {micro_batch}",
                            "use a smaller '--batch-size'")
