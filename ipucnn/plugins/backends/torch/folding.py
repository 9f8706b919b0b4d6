"""Folds batch norms into preceding convolutions: fewer memory passes, same function."""

from __future__ import annotations

import threading
from copy import copy
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import fx, nn

tracing = threading.Lock()
"""Held while a model is traced, because torch.fx replaces `Module.__call__`."""


class ThreadTracer(fx.Tracer):
    """A tracer that ignores calls of other threads, which torch.fx would trace as well."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def is_own_thread(self) -> bool:
        """Return whether the calling thread is the one that traces."""
        return threading.get_ident() == self._thread

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Tuple[Any, ...],
                    kwargs: Dict[str, Any]) -> Any:
        """Trace a call; see `torch.fx.Tracer.call_module`."""
        if not self.is_own_thread():
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)


class _Tracer(ThreadTracer):
    """A tracer that does not enter convolutions, including subclasses of `Conv2d`."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def fold_batch_norms(model: nn.Module,
                     dtype: Optional[torch.dtype] = None) -> Tuple[nn.Module, int]:
    """Return `model` (in eval mode) with foldable batch norms folded, and how many were.

    A batch norm can be folded when it alone reads the output of a convolution. A model that cannot
    be traced symbolically is returned unchanged, with 0.

    Args:
        model: its own weights are not changed.
        dtype: of the folded weights, which are computed in the type of the model and then
            rounded; that of the model when None.
    """
    try:
        with tracing:
            graph = _Tracer().trace(model)
    except Exception:  # tracing runs the model's own Python code on proxies: it may raise anything
        return model, 0
    modules: Dict[str, nn.Module] = dict(model.named_modules())
    calls: Dict[Any, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    replaced: Dict[str, nn.Module] = {}
    for node in list(graph.nodes):
        norm = modules.get(node.target) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        before = node.args[0]
        if before.op != "call_module" or len(before.users) != 1 or calls[before.target] != 1:
            continue
        convolution = modules[before.target]
        if not isinstance(convolution, nn.Conv2d) or norm.running_mean is None:
            continue
        replaced[before.target] = _folded(convolution, norm, dtype)
        if norm._modules:  # an activation that it applies
            replaced[node.target] = nn.Sequential(*norm.children())
        else:
            node.replace_all_uses_with(before)
            graph.erase_node(node)
    if not replaced:
        return model, 0
    folded = fx.GraphModule(model, graph)
    for path, module in replaced.items():
        parent, _, name = path.rpartition(".")
        setattr(folded.get_submodule(parent), name, module)
    folded.delete_all_unused_submodules()
    return folded, sum(isinstance(module, nn.Conv2d) for module in replaced.values())


@torch.no_grad()
def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d,
            dtype: Optional[torch.dtype]) -> nn.Conv2d:
    """Return a convolution that computes both.

    Only the new weights take memory of their own; they are written once, in the type and layout
    that are computed with.
    """
    mean, variance, weight = norm.running_mean, norm.running_var, convolution.weight
    assert mean is not None
    assert variance is not None
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    scaled = torch.empty_like(weight, dtype=dtype, memory_format=torch.channels_last)
    torch.mul(weight, scale.to(weight.dtype).reshape(-1, 1, 1, 1), out=scaled)
    bias = ((0 if convolution.bias is None else convolution.bias) - mean) * scale
    if norm.bias is not None:
        bias = bias + norm.bias
    bias = bias.to(weight.dtype).to(scaled.dtype)
    folded = copy(convolution)
    folded._parameters = {"weight": nn.Parameter(scaled, requires_grad=False),
                          "bias": nn.Parameter(bias, requires_grad=False)}
    return folded


@torch.no_grad()
def round_weights(model: nn.Module, dtype: torch.dtype, norms: bool = True) -> None:
    """Round weights to the precision of `dtype`, keeping their own type.

    Running statistics are not rounded.

    Args:
        model: changed in place.
        dtype: the narrower type.
        norms: whether to round those of norm layers, too.
    """
    for module in model.modules():
        if not norms and isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            continue
        tensors: List[torch.Tensor] = [*module.parameters(recurse=False)]
        if not isinstance(module, nn.modules.batchnorm._NormBase):
            tensors += module.buffers(recurse=False)
        for tensor in tensors:
            if tensor.is_floating_point():
                tensor.copy_(tensor.to(dtype).to(tensor.dtype))
