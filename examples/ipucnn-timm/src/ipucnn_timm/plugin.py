"""The records: one per network, from a file, so that a listing imports neither timm nor torch."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import ipucnn

NETWORKS = Path(__file__).with_name("networks.json")

REQUIRES = (ipucnn.Requirement("timm", "pip install 'timm>=1.0.31'"),)
OPTIONS = "ipucnn_timm.options:TimmOptions"
READER = "ipucnn_timm.weights:read"

IMAGENET_CLASSES = 1000
"""Outputs of a network that was published without a head."""

_RESIZES = {"center": "shortest", "squash": "squash"}
_CLASSES = {count: f"ipucnn_timm.classes:imagenet_{count}" for count in (
    11221, 11821, 21841, 21842, 21843)}


@ipucnn.hookimpl
def ipucnn_models() -> Iterator[ipucnn.ModelSpec]:
    """Every network of `networks.json`."""
    stored = json.loads(NETWORKS.read_text(encoding="utf-8"))
    images = [_preprocessing(*one) for one in stored["images"]]  # shared by the records
    for name, row in stored["networks"].items():
        yield _record(name, row, images)


def _record(name: str, row: Dict[str, Any],
            images: List[ipucnn.Preprocessing]) -> ipucnn.ModelSpec:
    return ipucnn.ModelSpec(
        name=f"timm/{name}", summary=f"{name} of timm", family=row["family"], source="timm",
        target=functools.partial(build, name, bool(row.get("fixed"))),
        options=OPTIONS, requires=REQUIRES,
        num_classes=row["classes"] or IMAGENET_CLASSES, preprocessing=images[row["images"]],
        weights=tuple(ipucnn.PublishedWeights(
            tag=tag, url=_address(place or f"timm/{name}.{tag}"), sha256="", licence=licence,
            source="timm", preprocessing=images[prepared], classes=_CLASSES.get(classes, ()),
            reader=READER) for tag, prepared, classes, licence, place in row["weights"]))


def _address(place: str) -> str:
    return place if "://" in place else f"https://huggingface.co/{place}"


def _preprocessing(size: int, crop: float, mode: str, interpolation: str, mean: List[float],
                   std: List[float]) -> ipucnn.Preprocessing:
    """Return the preprocessing for timm's values."""
    def cropped(fraction: float) -> ipucnn.Preprocessing:
        return ipucnn.Preprocessing(
            size, crop_fraction=fraction, resize=_RESIZES[mode], interpolation=interpolation,
            mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))

    # timm rounds the size before the crop down; ipucnn allows for errors of the division
    found, before_crop = cropped(crop), int(size / crop)
    return found if found.resize_size == before_crop else cropped(size / before_crop)


def build(name: str, fixed: bool, num_classes: int, input_size: Optional[int] = None,
          options: Optional[Any] = None) -> Any:
    """Return a network with random weights; see `ipucnn_timm.network.build`."""
    from ipucnn_timm import network

    return network.build(name, fixed, num_classes, input_size, options)
