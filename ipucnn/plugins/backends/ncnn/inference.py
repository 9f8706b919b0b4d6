"""The inference session: a network of ncnn, which computes several images at a time."""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, Optional

import ncnn  # a backend's engine is loaded when it is used
import numpy

from ipucnn.core.errors import IpucnnError, OutOfMemoryError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.machine import uses_openmp
from ipucnn.onnx.engine_base import ArraySession
from ipucnn.onnx.engine_graph import Graph
from ipucnn.plugins.backends._calls import divided
from ipucnn.plugins.backends.ncnn.param_file import INPUT, OUTPUT
from ipucnn.plugins.backends.ncnn.stored_network import load

if TYPE_CHECKING:
    Array = numpy.ndarray[Any, Any]

uses_openmp()  # ncnn does

_OPTIONS = {
    "lightmode": True, "use_winograd_convolution": True, "use_vulkan_compute": False,
    # single precision is float32; elsewhere than on x86, half precision is the default
    "use_fp16_packed": False, "use_fp16_storage": False, "use_fp16_arithmetic": False,
    "use_bf16_packed": False, "use_bf16_storage": False,
    "openmp_blocktime": 0,  # milliseconds in which idle threads spin
}
"""Options of ncnn; older releases lack some of them."""

_NO_MEMORY = -100
"""The code that layers return if there is no memory for their output."""

_CONCURRENT = (1, 0, 20261020)
"""The first release whose calls let other threads of Python run."""


class NcnnSession(ArraySession):
    """Computes the images of a micro-batch one by one, several of them at a time.

    Args:
        graph: the model; changed.
        plan: what to execute.
        together: number of images that are computed at a time, which share the threads.
        threads: number of threads that compute.
    """

    def __init__(self, graph: Graph, plan: ExecutionPlan, together: int, threads: int) -> None:
        plan = divided(plan, graph.input_size, None, on_cpu=True)
        self._graph, self._plan = graph, plan
        self.samples_per_call = plan.micro_batch
        self._together = min(together, threads)
        self._callers: Optional[ThreadPoolExecutor] = None
        # twice as many as are computed at a time, so that no thread waits for the caller
        self.in_flight = 1 if together == 1 else 2 * -(-self._together // plan.micro_batch)
        self._started: Deque[List[Future[Any]]] = deque(maxlen=self.in_flight)
        self._net: Optional[ncnn.Net] = None
        self._memory = _ThreadMemory()
        self._closed = False
        self._synthetic: Optional[Array] = None
        # where calls cannot overlap, each of them has all threads
        self._threads = max(1, threads // (self._together if concurrent() else 1))
        self.facts: Dict[str, Any] = {
            "weights_type": "float32", "arithmetic": "float32", "threads": threads,
            "threads_per_image": self._threads, "images_per_call": plan.micro_batch,
            "requests": together}

    def compile(self) -> float:
        """Translate or load the network; to warm up, compute one image."""
        started = time.perf_counter()
        net = ncnn.Net()
        for name, value in {**_OPTIONS, "num_threads": self._threads}.items():
            if hasattr(net.opt, name):
                setattr(net.opt, name, value)
        load(net, self._graph)
        self._net, self._closed = net, False
        if self._together > 1:
            self._callers = ThreadPoolExecutor(self._together, thread_name_prefix="ipucnn-call")
        if self._plan.synthetic or self.warm_up:
            self._synthetic = self._graph.example(self._plan)
            self._logits(self._synthetic[0])
        return time.perf_counter() - started

    def start(self, images: Any) -> Callable[[], Any]:
        """Start a call; see `InferenceSession.start`."""
        if self._callers is None or hasattr(images, "numpy"):  # tensors: see `ArraySession`
            return super().start(images)
        return self._submitted(self._synthetic if images is None else images)

    def classify(self, images: Optional[Array]) -> Array:
        """Classify up to a micro-batch; see `ArraySession.classify`."""
        given = self._synthetic if images is None else images
        if self._callers is not None:
            return self._submitted(given)()
        return self._logits_of(given)

    def close(self) -> None:
        """Release the network; cancel images that are not computed yet."""
        self._closed = True
        if self._callers is not None:
            for futures in self._started:
                for future in futures:
                    future.cancel()
            self._started.clear()
            self._callers.shutdown()
            self._callers = None
        if self._net is not None:
            self._net.clear()
        self._net = self._synthetic = None
        self._memory = _ThreadMemory()

    def _submitted(self, images: Any) -> Callable[[], Array]:
        assert self._callers is not None
        # a few images at a time: small ones are computed in less time than a thread is notified
        size = -(-len(images) // (2 * self._together))
        futures = [self._callers.submit(self._logits_of, images[begin:begin + size])
                   for begin in range(0, len(images), size)]
        self._started.append(futures)
        return lambda: numpy.concatenate([future.result() for future in futures])

    def _logits_of(self, images: Any) -> Array:
        """Return the logits of some images."""
        return numpy.stack([self._logits(image) for image in images])

    def _logits(self, image: Array) -> Array:
        """Return the logits of one image."""
        if self._net is None or self._closed:
            raise IpucnnError("the session is closed")
        channels, height, width = image.shape
        size = self._graph.input_size
        if image.shape != (3, size, size):
            raise IpucnnError(f"ncnn refuses images of shape {image.shape}: the network takes "
                              f"{(3, size, size)}")
        fed = ncnn.Mat((width, height, channels))
        numpy.asarray(fed)[...] = image
        with self._net.create_extractor() as extractor:
            self._memory.use_for(extractor)
            code = extractor.input(INPUT, fed)
            del fed  # its first layer may then overwrite it
            if not code:
                code, found = extractor.extract(OUTPUT)
            if code:
                raise _failed(code)
            # a copy, because the memory belongs to the network
            logits = numpy.array(found, numpy.float32).reshape(-1)
            del found
        return logits


class _ThreadMemory(threading.local):
    """The memory in which a thread computes its images.

    By default, a network has one memory for all threads: blocks that a thread has freed are used by
    another one, and move between the caches of their cores.
    """

    def __init__(self) -> None:
        self._outputs = ncnn.UnlockedPoolAllocator()
        # with a lock, because the threads of a layer may share it
        self._workspace = ncnn.PoolAllocator()

    def use_for(self, extractor: ncnn.Extractor) -> None:
        """Let an extractor compute in the memory of this thread."""
        extractor.set_blob_allocator(self._outputs)
        extractor.set_workspace_allocator(self._workspace)


def concurrent() -> bool:
    """Return whether calls in several threads of Python are computed at the same time."""
    parts = ncnn.__version__.split(".")
    return all(part.isdecimal() for part in parts) and tuple(map(int, parts)) >= _CONCURRENT


def _failed(code: int) -> IpucnnError:
    if code == _NO_MEMORY:
        return OutOfMemoryError("ncnn is out of memory",
                                "use fewer '--requests', or a smaller image")
    return IpucnnError(f"ncnn cannot compute the network (code {code})", "use another backend")
