"""Exports a module as a graph for an engine, with the pixel format of its plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Dict, Tuple

import torch

from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.data.normalisation import normalise_on_device
from ipucnn.models.batch_dependence import depends_on_batch
from ipucnn.models.memory_checks import check_layers, memory_errors
from ipucnn.models.tracing import execution_order, resolve_splits
from ipucnn.onnx.engine_graph import Graph
from ipucnn.onnx.target import OnnxTarget
from ipucnn.onnx.tracing_export import INPUT, Tracing, exported

if TYPE_CHECKING:
    import onnx


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

    proto = made()  # now, so that an error names the network
    return Graph(lambda: proto, INPUT, images.numpy().dtype.name, input_size,
                 None if dynamic_batch and not depends_on_batch(model) else plan.micro_batch,
                 splits=splits, modules=modules,
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
