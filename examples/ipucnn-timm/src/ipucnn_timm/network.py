"""Builds the networks."""

from __future__ import annotations

from typing import Any, Dict, Optional

import torch

from ipucnn.plugin import UsageError
from ipucnn_timm.options import TimmOptions


def build(name: str, fixed: bool, num_classes: int, input_size: Optional[int] = None,
          options: Optional[TimmOptions] = None) -> torch.nn.Module:
    """Return a network with random weights.

    Args:
        name: its name in timm, without a tag.
        fixed: whether its weights depend on the size of the images.
        num_classes: outputs of its head.
        input_size: height and width of the images; None for the published size.
        options: of the plugin; the defaults when None.

    Raises:
        UsageError: the installed timm lacks it, it cannot be made for images of this size, or has
            no stochastic depth.
    """
    import timm

    if not timm.is_model(name):
        raise UsageError(f"timm {timm.__version__} has no network {name!r}",
                         "run 'pip install --upgrade timm'")
    arguments: Dict[str, Any] = {"img_size": input_size} if fixed and input_size else {}
    if options is not None and options.drop_path:
        arguments["drop_path_rate"] = options.drop_path
    try:
        model: torch.nn.Module = timm.create_model(name, num_classes=num_classes, **arguments)
        if getattr(model, "dynamic_img_size", False):  # which cannot be exported to a graph
            arguments["dynamic_img_size"] = False
            model = timm.create_model(name, num_classes=num_classes, **arguments)
    except TypeError as error:
        if "drop_path_rate" not in str(error):
            raise
        raise UsageError(f"network {name!r} has no stochastic depth",
                         "leave '--drop-path' out") from error
    except (AssertionError, ValueError) as error:
        if not fixed:
            raise
        raise _refused(name, input_size, str(error)) from error
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if fixed and input_size and patch and input_size % max(patch):
        raise _refused(name, input_size, f"its patches are {max(patch)} pixels wide")
    model.ipucnn_arguments = arguments  # published weights are read for the same network
    return model


def _refused(name: str, input_size: Optional[int], why: str) -> UsageError:
    return UsageError(f"network {name!r} cannot read images of {input_size} pixels: {why}",
                      "use a multiple of the size of its patches and windows, or leave "
                      "'--input-size' out")
