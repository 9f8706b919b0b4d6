"""The inference session: one compiled program that takes the whole combined batch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Dict, Optional

import numpy
import popart
import torch

from ipucnn.core.execution.backend import InferenceSession
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.onnx.engine_graph import Graph
from ipucnn.plugins.backends._ipu.batches import full_batch
from ipucnn.plugins.backends._ipu.settings import PROFILE_FOLDER
from ipucnn.plugins.backends.popart.cache import set_cache_folder
from ipucnn.plugins.backends.popart.devices import acquire, reattach, release
from ipucnn.plugins.backends.popart.errors import device_errors
from ipucnn.plugins.backends.popart.graphs import (
    float_scalars,
    in_half,
    own_weights,
    placed,
    with_batch,
    with_constants,
    with_raw_values,
)
from ipucnn.plugins.backends.popart.norm_operators import group_norms
from ipucnn.plugins.backends.popart.options import PopArtOptions
from ipucnn.plugins.backends.popart.placing import stages_of
from ipucnn.plugins.backends.popart.pool_padding import without_counted_padding
from ipucnn.plugins.backends.popart.settings import inference_options
from ipucnn.plugins.backends.popart.transfers import marked, returned

if TYPE_CHECKING:
    import onnx


class PopArtInferenceSession(InferenceSession):
    """Calls take the local batch, B x D x R, which the program always runs in full."""

    def __init__(self, graph: Graph, plan: ExecutionPlan, options: PopArtOptions) -> None:
        self.samples_per_call = plan.local_batch
        self.reloadable = graph.remade is not None
        self._graph = graph
        self._plan = plan
        self._chosen = options
        self._output = graph.proto.graph.output[0].name
        self._convert = plan.half and not graph.half
        self._type = ("float16" if self._convert and graph.input_type == "float32"
                      else graph.input_type)
        self._shape = (plan.local_batch, 3, graph.input_size, graph.input_size)
        without_counted_padding(group_norms(graph.proto))
        self._stages = (stages_of(graph.proto.graph.node, graph.splits, graph.modules)
                        if graph.splits else None)
        self._model = self._made_ready(graph.proto)
        name = "float16" if plan.half else "float32"
        self.facts: Dict[str, Any] = {"weights_type": name, "arithmetic": name,
                                      "ipus": plan.local_devices}
        if graph.splits:
            self.facts["stages_begin_at"] = ["input", *graph.splits]
        if options.profile:
            self.facts["profile"] = PROFILE_FOLDER
        self._options = inference_options(plan, options)
        self._device: Any = None
        self._session: Any = None
        # the program has no stream for images then, and only their number is used
        self._synthetic = numpy.zeros(self._shape, self._type) if plan.synthetic else None

    def compile(self) -> float:
        """Compile for the IPUs, or read the program from the cache, and load it."""
        started = time.perf_counter()
        plan = self._plan
        set_cache_folder(self._options, self._model)
        with device_errors("be compiled", plan):
            self._device = acquire(plan, self._chosen)
            self._session = popart.InferenceSession(
                fnModel=self._model,
                dataFlow=popart.DataFlow(plan.device_iterations,
                                         {self._output: returned(
                                             plan, self._chosen.num_io_tiles)}),
                deviceInfo=self._device, userOptions=self._options)
            self._session.prepareDevice(not plan.compile_only)
            if not plan.compile_only:
                self._load_weights()
                self._anchors = self._session.initAnchorArrays()
                for array in self._anchors.values():
                    array.fill(0)  # with synthetic data nothing is written to them
        return time.perf_counter() - started

    def __call__(self, images: Optional[torch.Tensor]) -> torch.Tensor:
        """Classify up to a combined batch; see `InferenceSession.__call__`."""
        if images is None:
            if self._synthetic is None:
                raise ValueError("this session's plan is not synthetic: it needs images")
            return self._run(self._synthetic)
        # a compiled program has one shape: pad the last short batch, cut its logits
        batch = full_batch(images, self.samples_per_call, getattr(torch, self._type))
        return self._run(batch.numpy())[:len(images)]

    def load(self, weights: Dict[str, torch.Tensor]) -> None:
        """Load other weights into the compiled program; see `InferenceSession.load`."""
        if self._graph.remade is None:
            raise NotImplementedError("the weights of an ONNX file are those in the file")
        self._model = self._made_ready(
            without_counted_padding(group_norms(self._graph.remade(weights))))
        if self._session is not None and self._device.isAttached:
            with device_errors("take other weights", self._plan):
                self._load_weights()

    def pause(self) -> None:
        """Detach from the IPUs; the next call attaches again and restores program and weights."""
        with device_errors("leave the IPUs", self._plan):
            if self._device.isAttached:
                self._device.detach()

    def close(self) -> None:
        """Release the IPUs and the program."""
        self._session = None
        if self._device is not None:
            release(self._device)
            self._device = None

    def _run(self, batch: Any) -> torch.Tensor:
        with device_errors("run", self._plan):
            if not self._device.isAttached:
                reattach(self._device)
                self._session.loadEngineAndConnectStreams()
                self._load_weights()
            self._session.run(popart.PyStepIO({self._graph.input_name: batch}, self._anchors))
            if self._chosen.report_hw_cycle_count:
                self.facts["cycles"] = self._session.getCycleCount()
        logits = self._anchors[self._output]
        return torch.from_numpy(logits.reshape(len(batch), -1).astype(numpy.float32))

    def _load_weights(self) -> None:
        # a program from the cache contains the weights of the run that compiled it, and the graph
        # may have some that were compiled away
        self._session.resetHostWeights(self._model, True)
        self._session.weightsFromHost()

    def _made_ready(self, proto: onnx.ModelProto) -> bytes:
        proto = own_weights(with_raw_values(proto))
        if self._graph.batch is None:
            proto = with_batch(proto, self._plan.micro_batch)
        with device_errors("be prepared", self._plan):
            if self._convert:
                converted = in_half(proto)
            else:  # a file may be in half precision
                converted = (float_scalars(proto) if self._graph.half else proto
                             ).SerializeToString()
            model = with_constants(converted)
            if self._chosen.num_io_tiles:
                model = marked(model, self._plan)
            proportions = self._chosen.available_memory_proportion
            if self._stages or proportions:
                model = placed(model, proto.graph.node, self._stages, proportions)
        return model
