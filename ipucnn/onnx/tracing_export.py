"""Exports a torch module to ONNX by tracing."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, List, Optional

import torch

from ipucnn.core.errors import (
    IpucnnError,
    UnavailableError,
    UnsupportedNetworkError,
    UsageError,
)
from ipucnn.core.warning_filters import own_filters
from ipucnn.onnx.simplify import simplified
from ipucnn.onnx.target import INSTALL, MOST_BYTES, OnnxTarget

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "images", "logits"
"""Names of the graph's input and output."""


_OLDEST, _NEWEST = 7, 20 if hasattr(torch, "export") else 17
"""The operator sets of torch's tracing exporter: up to 17 in torch 2.0, 20 in current releases."""


def chosen_opset(wanted: Optional[int], target: OnnxTarget) -> int:
    """Return the operator set of a file: the newest that torch writes and the target reads.

    Raises:
        UsageError: the requested one is not supported by both.
    """
    oldest, newest = max(_OLDEST, target.opsets[0]), min(_NEWEST, target.opsets[1] or _NEWEST)
    if wanted is not None and not oldest <= wanted <= newest:
        raise UsageError(f"operator set {wanted} is not one of {oldest} to {newest}, which "
                         f"{target.name} reads and torch {torch.__version__} writes",
                         f"leave '--opset' out to get {newest}")
    return wanted or newest


@dataclass(frozen=True)
class Tracing:
    """The kind of graph that tracing makes.

    Attributes:
        opset: operator set; the newest that torch and the target share when not given.
        dynamic_batch: accept any number of images.
        training: export for training.
    """

    opset: Optional[int] = None
    dynamic_batch: bool = False
    training: bool = False


INFERENCE_GRAPH = Tracing()
"""A graph of a fixed batch, in the newest operator set."""


def exported(module: torch.nn.Module, images: torch.Tensor, target: OnnxTarget,
             graph: Tracing = INFERENCE_GRAPH, what: str = "the model") -> onnx.ModelProto:
    """Export `module` to ONNX and check it for its target.

    The tracing exporter is used with every torch release: it writes the operator sets that PopART
    needs and exists in torch 2.0. Batch norms are folded into convolutions unless `graph.training`,
    in which parameters keep their names and nothing is folded.

    Args:
        module: maps `images` to logits; in evaluation mode unless `graph.training`.
        images: an example, `(n, 3, size, size)`, of the graph's input type.
        target: of the export.
        graph: the kind of graph.
        what: the model, for messages.

    Raises:
        UnsupportedNetworkError: the model needs an operator that the operator set or the target
            lacks, is too large, or cannot be traced.
        UnavailableError: the onnx package is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise UnavailableError("exporting needs the onnx package", INSTALL) from error

    opset = chosen_opset(graph.opset, target)
    if sum(tensor.numel() * tensor.element_size()
           for tensor in module.state_dict().values()) > MOST_BYTES:
        raise UnsupportedNetworkError(
            f"{what} is larger than 2 GiB, which no ONNX file can hold", "use a smaller network")
    buffer = io.BytesIO()
    mode = torch.onnx.TrainingMode.TRAINING if graph.training else torch.onnx.TrainingMode.EVAL
    how: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(
        torch.onnx.export).parameters else {}
    if graph.dynamic_batch:
        how["dynamic_axes"] = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}
    try:
        with _exporting, _quiet() as warned, export_errors(what), _images_alone(module):
            torch.onnx.export(module, (images,), buffer,  # type: ignore[arg-type]
                              opset_version=opset,
                              input_names=[INPUT], output_names=[OUTPUT], training=mode,
                              do_constant_folding=not graph.training, **how)
    except _UNSUPPORTED as error:
        reason = str(error).splitlines()[0].partition("  [Caused by")[0]
        raise UnsupportedNetworkError(
            f"{what} cannot be exported to operator set {opset}: {reason}",
            "use another network or norm layer, or a newer '--opset'") from error
    _check_trace(warned, what)
    model = simplified(onnx.load_from_string(buffer.getvalue()))
    if target.rewrite is not None:
        model = target.rewrite(model)
    onnx.checker.check_model(model)
    target.check(model, what)
    return model


_UNSUPPORTED = (torch.onnx.errors.UnsupportedOperatorError, torch.onnx.errors.SymbolicValueError)

_exporting = threading.Lock()
"""Held during an export, because torch's exporter and warning filters are global."""


@contextlib.contextmanager
def _images_alone(module: torch.nn.Module) -> Iterator[None]:
    """Hide other parameters of `forward`, whose defaults torch's exporter passes as tensors."""
    forward = module.forward
    if len(inspect.signature(forward).parameters) < 2 or "forward" in vars(module):
        yield
        return
    module.forward = lambda images: forward(images)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.forward


@contextlib.contextmanager
def export_errors(what: str) -> Iterator[None]:
    """Convert any exception in a network's own code into an error that names the network."""
    try:
        yield
    except (IpucnnError, *_UNSUPPORTED, MemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        raise UnsupportedNetworkError(
            f"{what} cannot be exported: {type(error).__name__}: {reason}",
            "'--traceback' shows where it fails", exit_code=1) from error


def _check_trace(warned: List[warnings.WarningMessage], what: str) -> None:
    """Raise an error if a network's code read values, which the trace would keep as constants.

    torch's own modules read shapes in the same way; a graph is made for fixed shapes.

    Raises:
        UnsupportedNetworkError: names the line.
    """
    own = str(Path(torch.__file__).parent)
    looked_at: Any = torch.jit.TracerWarning  # type: ignore[attr-defined]
    for warning in warned:
        if issubclass(warning.category, looked_at) \
                and "Converting a tensor to a" in str(warning.message) \
                and not warning.filename.startswith(own):
            raise UnsupportedNetworkError(
                f"{what} cannot be exported: its code branches on values ('{warning.filename}', "
                f"line {warning.lineno}), and a graph computes the same for all images",
                "use a backend that executes the module itself, not a graph of it", exit_code=1)


@contextlib.contextmanager
def _quiet() -> Iterator[List[warnings.WarningMessage]]:
    """Suppress the exporter's developer messages; yield its warnings."""
    logger = logging.getLogger("torch.onnx")
    level, log = logger.level, torch._C._jit_onnx_log
    logger.setLevel(logging.ERROR)
    # newer torch has no option for it: it prints the whole graph to standard output on an error
    torch._C._jit_onnx_log = lambda *_: None
    try:
        # torch 2.0 prints a banner; with others, what another thread prints must not be lost
        banner = torch.__version__.startswith("2.0")
        with own_filters(record=True) as warned, (
                contextlib.redirect_stdout(io.StringIO()) if banner
                else contextlib.nullcontext()):
            warnings.simplefilter("always")
            yield warned
    finally:
        logger.setLevel(level)
        torch._C._jit_onnx_log = log
