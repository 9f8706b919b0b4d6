"""Base class of backends that read ONNX: from a file, or exported from a module.

This module does not import torch, which an ONNX file does not need.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Dict, Optional, Tuple, Union

from ipucnn.core.execution.backend import Backend, InferenceSession
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.data.example_images import random_images
from ipucnn.models.memory_checks import memory_errors
from ipucnn.onnx.network import OnnxNetwork, check_batch
from ipucnn.onnx.target import OnnxTarget

if TYPE_CHECKING:
    import numpy
    import onnx
    import torch

    Array = numpy.ndarray[Any, Any]


@dataclass
class Graph:
    """A model as passed to an engine.

    Attributes:
        made: creates or reads the model; see `proto`.
        input_name: name of the image input.
        input_type: of its images: `uint8`, `float32` or `float16`.
        input_size: their height and width.
        batch: images per call; None when any number gives the same logits.
        half: its weights are already float16, which is possible for a file.
        splits: first modules of the plan's pipeline stages.
        modules: with splits, the paths of all modules in order of execution.
        remade: exports the model again with other weights, a state dictionary of the module; None
            for a file, which has no module.
        path: a file that holds this model and all of its weights, until the engine changes it; may
            be empty.
    """

    made: Callable[[], onnx.ModelProto]
    input_name: str
    input_type: str
    input_size: int
    batch: Optional[int]
    half: bool = False
    splits: Tuple[str, ...] = ()
    modules: Tuple[str, ...] = ()
    remade: Optional[Callable[[Dict[str, torch.Tensor]], onnx.ModelProto]] = None

    path: str = ""
    _proto: Optional[onnx.ModelProto] = None

    @property
    def proto(self) -> onnx.ModelProto:
        """The model, which the engine may change."""
        if self._proto is None:
            self._proto = self.made()
        self.path = ""
        return self._proto

    @proto.setter
    def proto(self, value: onnx.ModelProto) -> None:
        self._proto, self.path = value, ""

    def stored(self) -> Union[str, bytes]:
        """Return the model as engines load it: the path of a file, or its content."""
        return self.path or bytes(self.proto.SerializeToString())

    def example(self, plan: ExecutionPlan) -> Array:
        """Return a micro-batch of random images of the input type.

        Raises:
            IpucnnError: there is not enough memory for them.
        """
        batch = self.batch or plan.micro_batch
        with memory_errors(batch):
            return random_images((batch, 3, self.input_size, self.input_size), self.input_type,
                                 plan.seed or 0)


class ArraySession(InferenceSession):
    """Base of sessions for engines that use numpy arrays; does not need torch."""

    takes_arrays = True

    @abstractmethod
    def classify(self, images: Optional[Array]) -> Array:
        """Return the logits of a batch, float32; see `InferenceSession.__call__`."""

    def __call__(self, images: Any) -> Any:
        """Classify a batch; arrays give an array, and tensors or None a tensor."""
        if images is not None and not hasattr(images, "numpy"):
            return self.classify(images)
        import torch

        return torch.from_numpy(self.classify(None if images is None else images.numpy()))

    def start(self, images: Any) -> Callable[[], Any]:
        """Start a call; see `InferenceSession.start`. None gives an array."""
        logits = self.classify(None) if images is None else self(images)
        return lambda: logits


def filled(images: Array, count: int) -> Array:
    """Return a batch padded with zeros to `count` images."""
    import numpy

    missing = count - len(images)
    if missing <= 0:
        return images
    return numpy.concatenate([images, numpy.zeros((missing, *images.shape[1:]), images.dtype)])


class OnnxBackend(Backend):
    """A backend whose engine reads ONNX. A subclass defines `target` and `session`.

    Attributes:
        target: the subset of ONNX that the engine supports.
        dynamic_batch: whether the engine needs graphs with a dynamic batch size.
        runs_files: whether sessions of files support everything that sessions of modules support.
    """

    target: ClassVar[OnnxTarget]
    dynamic_batch: ClassVar[bool] = False
    runs_files: ClassVar[bool] = False

    @abstractmethod
    def session(self, graph: Graph, plan: ExecutionPlan) -> InferenceSession:
        """Create an inference session from a checked graph; see `Backend.inference`."""

    def inference(self, model: torch.nn.Module, plan: ExecutionPlan,
                  input_size: int) -> InferenceSession:
        """Create an inference session; see `Backend.inference`."""
        return self.session(self.graph(model, plan, input_size), plan)

    def graph(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int) -> Graph:
        """Return the checked graph of a module or of a model file.

        Raises:
            UsageError: the engine does not support an operator of the network, or a file has
                another batch size than the plan.
        """
        if isinstance(model, OnnxNetwork):
            check_batch(model, plan.micro_batch)
            self.target.check_versions(model.facts.opset, model.facts.ir_version,
                                       f"'{model.path}'")
            if self.target.operators:
                self.target.check(model.outline, f"'{model.path}'")
            return Graph(model.whole, model.input_name, model.input_type, model.input_size,
                         model.batch, half=model.half_weights,
                         path=model.path if model.one_file else "")
        from ipucnn.onnx.module_graph import graph_of  # imports torch

        return graph_of(model, plan, input_size, self.target, self.dynamic_batch)
