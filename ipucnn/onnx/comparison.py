"""Compares the outputs of a graph and its module on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, List, Sequence, Tuple

import torch

from ipucnn.core.errors import IpucnnError, UnavailableError
from ipucnn.core.machine import compute_threads
from ipucnn.onnx import runtime_faults
from ipucnn.onnx.target import INSTALL
from ipucnn.onnx.tracing_export import INPUT, export_errors

if TYPE_CHECKING:
    import onnx

TOLERANCE = {"32.32": 1e-4, "16.16": 3e-2}
"""Largest difference of a logit, relative to the largest logit, by precision. Single precision
differs by the order of its sums (1e-6 is usual), half by the rounding of weights and activations
in up to 150 layers."""

_BAKED = ("nothing was written; a network whose Python code looks at its images or their number "
          "cannot be exported, and half precision may be too coarse for some")


def compare(proto: onnx.ModelProto, module: Callable[[torch.Tensor], torch.Tensor],
            examples: Sequence[torch.Tensor], tolerance: float,
            what: str = "the model") -> List[Tuple[int, float]]:
    """Run a graph in ONNX Runtime and compare it with the module.

    Args:
        proto: the graph.
        module: the module that it was exported from, in evaluation mode.
        examples: batches of images in the graph's input format.
        tolerance: largest difference of a logit, relative to the largest logit.
        what: the model, for messages.

    Returns:
        The largest relative difference for each batch, by batch size.

    Raises:
        UnavailableError: ONNX Runtime is missing.
        IpucnnError: they differ by more than the tolerance, or one of them fails on the images.
    """
    try:
        from ipucnn.onnx.runtime_library import onnxruntime
    except ImportError as error:
        raise UnavailableError("comparing an exported file needs onnxruntime", INSTALL) from error

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = compute_threads()
    runtime_faults.avoid(options)
    with export_errors(what):
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options,
                                               providers=["CPUExecutionProvider"])
    found = []
    for images in examples:
        with torch.no_grad(), export_errors(what):
            wanted = module(images).float()
            logits = torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0]).float()
        if logits.shape != wanted.shape:
            raise IpucnnError(f"{what} gives {tuple(wanted.shape)} for {len(images)} images, and "
                              f"exported {tuple(logits.shape)}", _BAKED)
        if not bool(torch.isfinite(wanted).all()):
            raise IpucnnError(f"the outputs of {what} are not finite, and nothing was written",
                              "the weights are damaged or diverged in training, or the precision "
                              "is too low")
        scale = max(float(wanted.abs().max()), 1e-6)
        difference = float((logits - wanted).abs().max()) / scale
        if not difference <= tolerance:  # also true for NaN
            raise IpucnnError(
                f"{what} differs from torch when exported: by {difference:.1e} of the largest "
                f"logit at batch {len(images)}, which is more than {tolerance:.0e}", _BAKED)
        found.append((len(images), difference))
    return found
