"""Divides a network into blocks, for learning rates that differ by layer.

A lower rate for earlier layers preserves the features that they have learned: Clark et al.,
"ELECTRA" (2020), section A; Bao et al., "BEiT" (2021).
"""

from __future__ import annotations

from typing import Dict, List, Tuple

from torch import nn

from ipucnn.core.errors import UsageError

FEWEST_BLOCKS = 4
"""With fewer blocks, those that are sequences of modules are divided."""

Block = Tuple[str, nn.Module]


def head_of(model: nn.Module) -> str:
    """Return the path of the output layer: the last module with parameters of its own.

    Raises:
        UsageError: it is the model itself.
    """
    names = [name for name, _ in model.named_parameters()]
    path = names[-1].rpartition(".")[0] if names else ""
    if not path:
        raise UsageError("the model has no module with the parameters of its outputs",
                         "leave '--freeze', '--layer-decay' and '--head-lr-factor' out")
    return path


def blocks_of(model: nn.Module) -> List[List[str]]:
    """Return the names of the parameters of each block, from the input to the output.

    A block is a top-level module, or an item of a top-level list of modules; where these are few,
    an item of a sequence. Layers that follow each other outside of blocks (a convolution and its
    norm) are one block. The output layer is the last block.
    """
    head = head_of(model)
    path, root = "", model
    while not list(root.parameters(recurse=False)) and len(_children(path, root)) == 1:
        path, root = _children(path, root)[0]  # a wrapper
    blocks = _children(path, root)
    opened = [inner for block in blocks for inner in (
        _children(*block) if isinstance(block[1], nn.ModuleList) else [block])]
    if len(opened) < FEWEST_BLOCKS:
        opened = [inner for block in opened for inner in (
            _children(*block) if isinstance(block[1], nn.Sequential) else [block])]
    numbers: Dict[str, int] = {}
    number, after_layer = -1, False
    for path, module in opened:
        layer = not _children(path, module)
        number += not (layer and after_layer)
        numbers[path], after_layer = number, layer
    found: List[List[str]] = [[] for _ in range(number + 2)]
    for name, _ in model.named_parameters():
        inside = (numbers[path] for path in numbers if name.startswith(path + "."))
        found[-1 if name.startswith(head + ".") else next(inside, 0)].append(name)
    return [names for names in found if names]


def rate_factors(model: nn.Module, decay: float, head: float) -> Dict[str, float]:
    """Return the factors on the learning rate by parameter name; empty if all are 1.

    Args:
        model: the network.
        decay: factor from each block to the one before it; the rate of block k before the output
            layer is decay^k times that of the training.
        head: further factor of the output layer.
    """
    if decay == 1 and head == 1:
        return {}
    blocks = blocks_of(model)
    return {name: head if depth == 0 else decay ** depth
            for depth, names in enumerate(reversed(blocks)) for name in names}


def _children(path: str, module: nn.Module) -> List[Block]:
    """Return the children that have parameters, with their full paths."""
    return [(f"{path}.{name}" if path else name, child) for name, child in module.named_children()
            if next(child.parameters(), None) is not None]
