"""Base class of backends that read ONNX: from a file, or exported from a module.

This module does not import torch, which an ONNX file does not need.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Optional

from ipucnn.core.execution.backend import Backend, InferenceSession
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.onnx.engine_graph import Graph
from ipucnn.onnx.network import OnnxNetwork, check_batch
from ipucnn.onnx.target import OnnxTarget

if TYPE_CHECKING:
    import numpy
    import torch

    Array = numpy.ndarray[Any, Any]


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
