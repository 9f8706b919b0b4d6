"""Write `networks.json` from the installed timm: `python -m ipucnn_timm.generate`.

Networks are left out that read no square images of three channels, whose images are resized with a
border, or that are encoders of language models. With `--build` each is built and called on the meta
device, without memory, and left out unless it returns logits.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from dataclasses import dataclass
from typing import Any, Dict, List, Optional

import timm
import torch
from timm.models import get_pretrained_cfg, list_pretrained, model_entrypoint

from ipucnn_timm.plugin import NETWORKS

CLASSES = 7


@dataclass
class Found:
    """What is known of a network.

    Attributes:
        row: its data; None if it is left out.
        problem: why it is left out.
    """

    row: Optional[Dict[str, Any]] = None
    problem: str = ""


def bordered(config: Any) -> bool:
    """Return whether images do not fill the input."""
    return bool(config.crop_mode == "border" or config.crop_pct > 1)


def preprocessing(config: Any) -> List[Any]:
    """Return the size, crop, mode, interpolation, mean and standard deviation of weights."""
    return [config.input_size[-1], config.crop_pct, config.crop_mode, config.interpolation,
            list(config.mean), list(config.std)]


def examined(name: str, build: bool = False) -> Found:
    """Return the data of a network; with `build`, only if it gives logits."""
    config = get_pretrained_cfg(name)
    if config is None:
        return Found(problem="it has no configuration")
    channels, height, width = config.input_size
    if channels != 3 or height != width:
        return Found(problem=f"it reads images of {height}x{width} pixels, {channels} channels")
    if bordered(config):
        return Found(problem="its images are resized with a border")
    if name.endswith("_enc"):
        return Found(problem="it is an encoder for language models")
    if build:
        problem = called(name, height)
        if problem:
            return Found(problem=problem)
    row: Dict[str, Any] = {"family": model_entrypoint(name).__module__.rpartition(".")[2],
                           "images": preprocessing(config), "classes": config.num_classes}
    if config.fixed_input_size:
        row["fixed"] = 1
    return Found(row)


def called(name: str, size: int) -> str:
    """Build a network on the meta device and call it; return what is wrong, or an empty text."""
    try:
        with torch.device("meta"), torch.no_grad():
            model = timm.create_model(name, num_classes=CLASSES).eval()
            logits = model(torch.zeros(2, 3, size, size))
    except Exception as error:  # anything in a thousand networks
        return f"{type(error).__name__}: {str(error).splitlines()[0][:90]}"
    shape = tuple(getattr(logits, "shape", ()))
    return "" if shape == (2, CLASSES) else "it does not return logits"


def weights_of(name: str) -> List[List[Any]]:
    """Return the published weights of a network, timm's default first."""
    default, found = get_pretrained_cfg(name).tag, []
    for full_name in list_pretrained(f"{name}.*"):
        config, tag = get_pretrained_cfg(full_name), full_name.partition(".")[2]
        if not bordered(config):
            place = config.hf_hub_id or config.url
            found.append([tag, preprocessing(config), config.num_classes,
                          config.license or "not stated",
                          "" if place == f"timm/{full_name}" else place])
    return sorted(found, key=lambda row: row[0] != default)


def text(networks: Dict[str, Any]) -> str:
    """Return the file: a line per network, which refers to preprocessing by its index."""
    images: List[Any] = []

    def index(one: List[Any]) -> int:
        if one not in images:
            images.append(one)
        return images.index(one)

    lines = []
    for name, row in networks.items():
        row = {**row, "images": index(row["images"]),
               "weights": [[tag, index(one), *rest] for tag, one, *rest in row["weights"]]}
        lines.append(f"{json.dumps(name)}: {json.dumps(row, separators=(',', ':'))}")
    return "\n".join(["{", f'"timm": "{timm.__version__}",', '"images": [',
                      ",\n".join(json.dumps(one) for one in images), "],", '"networks": {',
                      ",\n".join(lines), "}}", ""])


def main() -> int:
    """Examine every network, and write the file."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", action="store_true",
                        help="build and call every network, which takes minutes")
    build = parser.parse_args().build
    networks: Dict[str, Any] = {}
    for name in timm.list_models():
        found = examined(name, build)
        if found.row is None:
            print(f"{name} is left out: {found.problem}", file=sys.stderr)
        else:
            networks[name] = {**found.row, "weights": weights_of(name)}
    NETWORKS.write_text(text(networks), encoding="utf-8")
    print(f"{len(networks)} networks, {sum(len(row['weights']) for row in networks.values())} "
          "sets of weights")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
