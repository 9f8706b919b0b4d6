"""Base class of backends that read ONNX; exports a module, or reads a file, for their engine."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Callable, ClassVar, Dict, Optional, Tuple

import torch

from ipucnn.core.execution.backend import Backend, InferenceSession
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.data.normalisation import normalise_on_device
from ipucnn.models.footprint import check_layers
from ipucnn.models.tracing import execution_order, resolve_splits
from ipucnn.onnx.examples import memory_errors, random_images
from ipucnn.onnx.network import OnnxNetwork, check_batch
from ipucnn.onnx.target import OnnxTarget
from ipucnn.onnx.tracing_export import INPUT, Tracing, exported

if TYPE_CHECKING:
    import onnx


@dataclass
class Graph:
    """A model as passed to an engine.

    Attributes:
        proto: the model; the engine may change it.
        input_name: name of the image input.
        input_type: of its images: `uint8`, `float32` or `float16`.
        input_size: their height and width.
        batch: images per call; None when any number is accepted.
        half: its weights are already float16, which is possible for a file.
        splits: first modules of the plan's pipeline stages.
        modules: with splits, the paths of all modules in order of execution.
        remade: exports the model again with other weights, a state dictionary of the module; None
            for a file, which has no module.
    """

    proto: onnx.ModelProto
    input_name: str
    input_type: torch.dtype
    input_size: int
    batch: Optional[int]
    half: bool = False
    splits: Tuple[str, ...] = ()
    modules: Tuple[str, ...] = ()
    remade: Optional[Callable[[Dict[str, torch.Tensor]], onnx.ModelProto]] = None

    def example(self, plan: ExecutionPlan) -> torch.Tensor:
        """Return a micro-batch of random images of the input type.

        Raises:
            IpucnnError: there is not enough memory for them.
        """
        batch = self.batch or plan.micro_batch
        with memory_errors(batch):
            return random_images((batch, 3, self.input_size, self.input_size), self.input_type,
                                 plan.seed or 0)


class OnnxBackend(Backend):
    """A backend whose engine reads ONNX. A subclass defines `target` and `session`.

    Attributes:
        target: the subset of ONNX that the engine supports.
        dynamic_batch: it needs graphs that take any number of images, not just micro-batches.
    """

    target: ClassVar[OnnxTarget]
    dynamic_batch: ClassVar[bool] = False

    @abstractmethod
    def session(self, graph: Graph, plan: ExecutionPlan) -> InferenceSession:
        """Make an inference session from a checked graph; see `Backend.inference`."""

    def inference(self, model: torch.nn.Module, plan: ExecutionPlan,
                  input_size: int) -> InferenceSession:
        """Make an inference session; see `Backend.inference`."""
        return self.session(self.graph(model, plan, input_size), plan)

    def graph(self, model: torch.nn.Module, plan: ExecutionPlan, input_size: int) -> Graph:
        """Return the checked graph of a module or of a model file.

        Raises:
            UsageError: the network needs an operator that the engine lacks, or a file has another
                batch than the plan.
        """
        if isinstance(model, OnnxNetwork):
            check_batch(model, plan.micro_batch)
            self.target.check(model.proto, f"'{model.path}'")
            return Graph(model.proto, model.input_name, getattr(torch, model.input_type),
                         model.input_size, model.batch, half=model.half_weights)
        return graph_of(model, plan, input_size, self.target, self.dynamic_batch)


def graph_of(model: torch.nn.Module, plan: ExecutionPlan, input_size: int, target: OnnxTarget,
             dynamic_batch: bool) -> Graph:
    """Return the graph of a module, normalising images where the plan requires it.

    Args:
        model: modified: set to evaluation mode, with normalisation added.
        plan: the execution plan.
        input_size: height and width of the images.
        target: of the export.
        dynamic_batch: accept any number of images.

    Raises:
        UsageError: a pipeline split is unknown or out of order.
    """
    check_layers(model, plan, input_size)
    splits = tuple(resolve_splits(model, plan.pipeline_splits, input_size))
    modules = tuple(execution_order(model, input_size)) if splits else ()
    with memory_errors(plan.micro_batch):
        # with one image, tracing may treat a batch of 1 as constant
        module, images = graph_module(
            model, replace(plan, micro_batch=2) if dynamic_batch else plan, input_size)

    def made() -> onnx.ModelProto:
        return exported(module, images, target, Tracing(dynamic_batch=dynamic_batch),
                        f"network {type(model).__name__!r}")

    def remade(weights: Dict[str, torch.Tensor]) -> onnx.ModelProto:
        model.load_state_dict(weights)
        return made()

    return Graph(made(), INPUT, images.dtype, input_size,
                 None if dynamic_batch else plan.micro_batch, splits=splits, modules=modules,
                 remade=remade)


def graph_module(model: torch.nn.Module, plan: ExecutionPlan,
                 input_size: int) -> Tuple[torch.nn.Module, torch.Tensor]:
    """Return the module to export, with its normalisation, and a micro-batch for it.

    Args:
        model: modified: set to evaluation mode, with normalisation added.
        plan: the execution plan.
        input_size: height and width of the images.
    """
    return with_images(model.eval().requires_grad_(False), plan, input_size)


def with_images(model: torch.nn.Module, plan: ExecutionPlan,
                input_size: int) -> Tuple[torch.nn.Module, torch.Tensor]:
    """Make a model accept images in the plan's pixel format; return it with a micro-batch.

    Args:
        model: modified: it normalises images, or converts bytes to numbers of 0 to 255.
        plan: the execution plan.
        input_size: height and width of the images.
    """
    if plan.normalisation == "device":
        normalise_on_device(model, preprocessing=plan.preprocessing)
    elif plan.eight_bit_io:
        model.register_forward_pre_hook(_as_floats)
    return model, torch.zeros((plan.micro_batch, 3, input_size, input_size),
                              dtype=torch.uint8 if plan.eight_bit_io else torch.float32)


def _as_floats(_model: torch.nn.Module,
               inputs: Tuple[torch.Tensor, ...]) -> Tuple[torch.Tensor, ...]:
    return (inputs[0].float(), *inputs[1:])
