"""Whether a graph computes what the module does: both are run on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, List, Sequence, Tuple

import torch  # noqa: TID253

from ipucnn.core.errors import IpucnnError, UnavailableError
from ipucnn.core.onnx.export import INPUT, INSTALL

if TYPE_CHECKING:
    import onnx

TOLERANCE = {"32.32": 1e-4, "16.16": 3e-2}
"""Largest difference of a logit, relative to the largest logit, by precision. Single precision
differs by the order of its sums (1e-6 is usual), half by the rounding of weights and activations
in up to 150 layers."""


def compare(proto: onnx.ModelProto, module: Callable[[torch.Tensor], torch.Tensor],
            examples: Sequence[torch.Tensor], tolerance: float) -> List[Tuple[int, float]]:
    """Run a graph in ONNX Runtime beside the module.

    Args:
        proto: the graph.
        module: what it was made from, in evaluation mode.
        examples: batches of images as the graph takes them.
        tolerance: largest difference of a logit, relative to the largest logit.

    Returns:
        The size of each batch and the largest relative difference on it.

    Raises:
        UnavailableError: ONNX Runtime is missing.
        IpucnnError: they differ by more than the tolerance.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UnavailableError("comparing an exported file needs onnxruntime", INSTALL) from error

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    found = []
    for images in examples:
        with torch.no_grad():
            wanted = module(images).float()
        logits = torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0]).float()
        scale = max(float(wanted.abs().max()), 1e-6)
        difference = float((logits - wanted).abs().max()) / scale
        if not difference <= tolerance:  # also when it is not a number
            raise IpucnnError(
                f"the exported network differs from torch's by {difference:.1e} of the largest "
                f"logit at batch {len(images)}, which is more than {tolerance:.0e}",
                "with '--precision full' it is nearer; nothing was written")
        found.append((len(images), difference))
    return found
