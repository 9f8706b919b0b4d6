"""Names of modules in the last releases of Graphcore's PyTorch application, and their names here.

It built EfficientNet with timm and MobileNet-V3 by itself, and named the additions of residual
blocks by their number in the traced network: `add`, `add_1` ...
"""

from __future__ import annotations

import re
from typing import Dict, List, Optional, Tuple

_REPEATS: Dict[str, Tuple[int, ...]] = {
    "resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3), "resnet152": (3, 8, 36, 3),
    "efficientnet-b0": (1, 2, 2, 3, 3, 4, 1), "efficientnet-b4": (2, 4, 4, 6, 6, 8, 2)}
"""Blocks of each stage."""

_BLOCK = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
          "se/conv_reduce": "_se_reduce", "se/conv_expand": "_se_expand",
          "conv_pwl": "_project_conv", "bn3": "_bn2"}
_FIRST_BLOCK = {**_BLOCK, "conv_pw": "_project_conv", "bn1": "_bn1", "bn2": "_bn2"}
"""Layers of a block; those of the first stage do not expand."""

_AROUND = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1",
           "classifier": "_fc"}

_LAST = {"mobilenet-v3-small": 12, "mobilenet-v3-large": 16}
"""The last convolution, which follows the blocks."""


def module_here(model: str, name: str) -> str:
    """Return the name of a module here, or `name` if it has no other one."""
    made: Optional[str] = None
    if model.startswith("efficientnet") and model in _REPEATS:
        made = _efficientnet(_REPEATS[model], name)
    elif model in _LAST:
        made = _mobilenet(_LAST[model], name)
    return made or name


def kept_here(model: str, name: str) -> str:
    """Return the regular expression of a module whose output is kept for recomputation."""
    added = re.fullmatch(r"add(?:_(\d+))?", name)
    if added and model in _REPEATS:
        blocks = _residual_blocks(model)
        number = int(added.group(1) or 0)
        return blocks[number] + "$" if number < len(blocks) else name
    return re.sub(r"(/downsample)_(?=\d$)", r"\1/", module_here(model, name))


def _efficientnet(repeats: Tuple[int, ...], name: str) -> Optional[str]:
    found = re.fullmatch(r"blocks/(\d)/(\d+)(?:/(.+))?", name)
    if found is None:
        return _AROUND.get(name)
    stage, block, layer = int(found.group(1)), int(found.group(2)), found.group(3)
    if stage >= len(repeats) or block >= repeats[stage]:
        return None
    path = f"_blocks/{sum(repeats[:stage]) + block}"
    if layer is None:
        return path
    inner = (_BLOCK if stage else _FIRST_BLOCK).get(layer)
    return inner and f"{path}/{inner}"


def _mobilenet(last: int, name: str) -> Optional[str]:
    found = re.fullmatch(r"mb_block/(\d+)(?:/seq/0)?", name)
    if found:
        return f"features/{int(found.group(1)) + 1}"
    return {"first_block": "features/0", "first_block/0": "features/0/0",
            "last_block": f"features/{last}", "last_block/0": f"features/{last}/0",
            "output": "classifier/3"}.get(name)


def _residual_blocks(model: str) -> List[str]:
    """Return the paths of the blocks that add their input, in order."""
    repeats = _REPEATS[model]
    if model.startswith("resnet"):
        return [f"layer{stage}/{block}" for stage, count in enumerate(repeats, start=1)
                for block in range(count)]
    return [f"_blocks/{sum(repeats[:stage]) + block}" for stage, count in enumerate(repeats)
            for block in range(1, count)]
