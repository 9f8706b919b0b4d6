"""Reads what other exporters write beside a model file: class names and preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ipucnn.core.documents import parsed_json
from ipucnn.core.errors import IpucnnError
from ipucnn.core.files import read_limited
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.models.foreign_names import class_names_in, naming_fields

NAMES, IMAGES = "config.json", "preprocessor_config.json"
"""The files of a Hugging Face model: its configuration, and that of its image processor."""

_FOLDER = "onnx"
"""A folder of model files whose configuration is in the folder around it."""

_LIMIT = 1 << 24

_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""Names of Pillow's numbers."""

_UNUSUAL = ("rescale_offset", "include_top")
"""Fields of processors with further steps, if they are true."""

_SQUASHED_FROM = 384
"""The size from which the processor of ConvNeXt does not crop."""


def files_beside(path: Path) -> List[Path]:
    """Return the existing configuration files of a model file."""
    places = [path.parent] if path.parent.name != _FOLDER else [path.parent, path.parent.parent]
    found = [next((place / name for place in places if (place / name).is_file()), None)
             for name in (NAMES, IMAGES)]
    return [file for file in found if file is not None]


def names_beside(path: Path, num_outputs: int) -> Tuple[str, ...]:
    """Return the class names in the configuration of a model file.

    They are empty if there is none, if it is of a model with another number of classes, or if its
    fields contradict each other.

    Args:
        path: the model file.
        num_outputs: number of outputs of the model.
    """
    return class_names_in(naming_fields(_values(path, NAMES)), num_outputs)


def preprocessing_beside(path: Path, input_size: int) -> Optional[Preprocessing]:
    """Return the preprocessing in the configuration of the image processor of a model file.

    It is None if there is none, or if it is for another input size or not a `Preprocessing`.

    Args:
        path: the model file.
        input_size: of the model.
    """
    values = _values(path, IMAGES)
    if not values or any(values.get(name) for name in _UNUSUAL):
        return None
    try:
        resize, size, crop = _sizes(values)
        if crop != input_size or values.get("do_resize") is False:
            return None
        factor = values.get("rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1
        normalised = values.get("do_normalize", True)
        return Preprocessing(
            input_size, crop / size, resize, _INTERPOLATIONS[values.get("resample", 2)],
            tuple(values["image_mean"]) if normalised else (0.0, 0.0, 0.0),
            tuple(values["image_std"]) if normalised else (1.0, 1.0, 1.0),
            value_range=(0.0, 255 * factor))
    except (KeyError, TypeError, ValueError, ArithmeticError, IpucnnError):
        return None


def _sizes(values: Mapping[str, Any]) -> Tuple[str, int, int]:
    """Return the kind of resizing, the size that an image is resized to, and that of the crop.

    Raises:
        KeyError, TypeError, ValueError: the result is not square.
    """
    size, share = values["size"], values.get("crop_pct")
    crop = values.get("crop_size") if values.get("do_center_crop") else None
    if isinstance(crop, dict):
        crop = crop["height"] if crop["height"] == crop["width"] else None
    if isinstance(size, dict) and "height" in size:
        if size["height"] != size["width"]:
            raise ValueError("it is not square")
        return "squash", size["height"], crop or size["height"]
    edge = size["shortest_edge"] if isinstance(size, dict) else size
    if crop:
        return "shortest", edge, crop
    if share and edge < _SQUASHED_FROM:
        return "shortest", int(edge / share), edge
    if share or not isinstance(size, dict):
        return "squash", edge, edge
    raise ValueError("it is not square")


def _values(path: Path, name: str) -> Dict[str, Any]:
    """Return the content of a configuration file; empty without a usable one."""
    file = next((file for file in files_beside(path) if file.name == name), None)
    try:
        values = {} if file is None else parsed_json(read_limited(file, _LIMIT).decode("utf-8"))
    except (OSError, ValueError):  # the file may be of another program
        return {}
    return values if isinstance(values, dict) else {}
