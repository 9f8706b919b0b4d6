"""Creates a model's optimizer: parameter groups, and fused variants of torch's optimizers."""

from __future__ import annotations

from typing import Any, Dict, List

import torch
from torch import nn

from ipucnn.core.execution.training_session import OptimizerChoice

_FUSED_ON_CPU = {"SGD", "Adam", "AdamW"}
"""Optimizers with a fused kernel for the CPU."""


def parameter_groups(model: nn.Module, weight_decay: float) -> List[Dict[str, Any]]:
    """Return the trainable parameters in two groups: with and without weight decay.

    Tensors with one dimension (biases, weights of norm layers) have none, as in the old application
    and in "Bag of Tricks for Image Classification" (He et al., 2019).
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": [p for p in trained if p.dim() != 1], "weight_decay": weight_decay},
              {"params": [p for p in trained if p.dim() == 1], "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimizer(model: nn.Module, choice: OptimizerChoice) -> torch.optim.Optimizer:
    """Return the optimizer of a model's trainable parameters."""
    optimizer: torch.optim.Optimizer = choice.build(
        parameter_groups(model, choice.weight_decay), lr=choice.lr)
    return optimizer


def fused_if_possible(kind: Any, groups: List[Dict[str, Any]],
                      **values: Any) -> torch.optim.Optimizer:
    """Return ``kind(groups, **values)``, fused if torch supports it.

    Fused kernels make one pass over each tensor. torch has them for the CPU since 2.4; they need
    floating-point tensors on a CPU or GPU.

    Args:
        kind: a class of `torch.optim`.
        groups: parameter groups, as torch takes them.
        **values: further arguments of the class.
    """
    tensors = [tensor for group in groups for tensor in group["params"]]
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if tensors and version >= (2, 4) and kind.__name__ in _FUSED_ON_CPU \
            and all(tensor.is_floating_point() and tensor.device.type in ("cpu", "cuda")
                    for tensor in tensors):
        values["fused"] = True
    optimizer: torch.optim.Optimizer = kind(groups, **values)
    return optimizer
