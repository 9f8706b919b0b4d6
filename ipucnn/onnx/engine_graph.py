"""A model as passed to an engine; does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Tuple, Union

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.data.example_images import random_images
from ipucnn.models.memory_checks import memory_errors

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
