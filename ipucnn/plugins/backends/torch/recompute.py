"""Recomputes activations in the backward pass instead of storing them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator, List, Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ipucnn.core.errors import UsageError
from ipucnn.models.surgery import recompute_points


def recompute(model: nn.Module, mode: str, patterns: Sequence[str]) -> List[str]:
    """Recompute the activations inside parts of a model; their inputs and outputs are stored.

    The result is the same bit for bit: random numbers are drawn again from the same state, and the
    statistics of batch norm are not updated a second time.

    Args:
        model: the `forward` of its modules is replaced; names and parameters stay.
        mode: `auto` recomputes the blocks of the network, or the matching modules of a block;
            `manual` recomputes the matching modules only.
        patterns: regular expressions of module paths with slashes.

    Returns:
        The paths of the parts.

    Raises:
        UsageError: nothing matches.
    """
    chosen = [path.replace("/", ".") for path in recompute_points(model, patterns)]
    if mode == "manual" and not patterns:
        raise UsageError("'--recompute-mode manual' needs modules to keep",
                         "name them with '--recompute-checkpoints', or use 'auto'")
    if mode == "auto":
        blocks = [f"{name}.{child}" if name else child for name, module in model.named_modules()
                  if isinstance(module, (nn.Sequential, nn.ModuleList))
                  for child, block in module.named_children() if list(block.children())]
        chosen += [block for block in blocks if block not in chosen and not any(
            path.startswith(block + ".") for path in chosen)]
    # a part within a part is recomputed with it
    outer = [path for path in chosen if not any(
        path != other and path.startswith(other + ".") for other in chosen)]
    for path in outer:
        module = model.get_submodule(path)
        module.forward = _Recomputed(module, module.forward)  # type: ignore[method-assign]
    return outer


class _Recomputed:
    """Replaces the `forward` of a part."""

    def __init__(self, module: nn.Module, forward: Any) -> None:
        self._module = module
        self._forward = forward

    def __call__(self, *inputs: Any, **settings: Any) -> Any:
        if not self._module.training:
            return self._forward(*inputs, **settings)
        passes: List[int] = []

        def run(*values: Any) -> Any:
            passes.append(1)
            if len(passes) == 1:
                return self._forward(*values, **settings)
            with _without_statistics(self._module):
                return self._forward(*values, **settings)

        return checkpoint(run, *inputs, use_reentrant=False)


@contextmanager
def _without_statistics(module: nn.Module) -> Iterator[None]:
    """Use the statistics of the batch in batch norms, without recording them.

    Without a momentum the running statistics keep their values; they must remain an input of the
    layer, because the second pass has to save as many tensors as the first.
    """
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats
             and m.training]
    before = [(norm.momentum, None if norm.num_batches_tracked is None
               else norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before):
            norm.momentum = momentum
            if count is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(count)
