"""The job behind `ipucnn export`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.files import require_writable, write_bytes
from ipucnn.core.registry.records import BackendSpec, ModelSpec, NormLayerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.core.registry.targets import import_target
from ipucnn.core.showing import Blocks, Facts, Shown
from ipucnn.data.example_images import random_images
from ipucnn.models.build import build_model, seeded
from ipucnn.models.built import BuiltModel
from ipucnn.onnx.comparison import TOLERANCE, compare
from ipucnn.onnx.embedded_metadata import Metadata
from ipucnn.onnx.float16 import in_float16
from ipucnn.onnx.module_graph import graph_module
from ipucnn.onnx.options import ExportOptions
from ipucnn.onnx.target import OnnxTarget, opset_of
from ipucnn.onnx.tracing_export import Tracing, chosen_opset, exported
from ipucnn.version import __version__

COMPARED_BATCHES = (1, 2, 5)
"""Batch sizes with which a file of dynamic batch size is compared with torch."""


@dataclass(repr=False)
class ExportResult(Shown):
    """The result of `ipucnn export`.

    Attributes:
        path: the file.
        model, target: canonical names.
        size: of the file in bytes.
        opset: version of the ai.onnx operator set.
        ir_version: version of the file format.
        input: type and shape of the images; None stands for a dynamic batch size.
        operators: how often each is used.
        weights: source of the weights.
        tolerance: allowed difference from torch, relative to the largest logit.
        differences: measured differences, by batch size.
    """

    path: str
    model: str
    target: str
    size: int
    opset: int
    ir_version: int
    input: Dict[str, Any]
    operators: Dict[str, int]
    weights: str
    tolerance: float
    differences: Dict[int, float] = field(default_factory=dict)

    def as_dict(self) -> Dict[str, Any]:
        """Return the result as plain types, for JSON."""
        return {"format": "ipucnn.export/1", **asdict(self)}

    def facts(self) -> Facts:
        """Return the result as names and values, for people."""
        shape = " x ".join("any" if size is None else str(size) for size in self.input["shape"])
        return [
            ("file", self.path), ("size", f"{self.size / 2**20:.1f} MiB"),
            ("model", self.model), ("for", self.target),
            ("operator set", f"ai.onnx {self.opset}, format version {self.ir_version}"),
            ("images", f"{shape} {self.input['type']}"),
            ("operators", ", ".join(f"{name} {count}" for name, count in self.operators.items())),
            ("weights", self.weights),
            ("compared", "; ".join(f"batch {batch}: {difference:.1e}" for batch, difference
                                   in self.differences.items())
             + f" of the largest logit from torch (at most {self.tolerance:.0e})")]

    def blocks(self) -> Blocks:
        """Return the facts; see `Shown`."""
        return [self.facts()]

    def records(self) -> List[Dict[str, Any]]:
        """Return one row: the result as plain types."""
        return [self.as_dict()]


def export(options: ExportOptions, registry: Optional[Registry] = None) -> ExportResult:
    """Export a network to a verified ONNX file.

    The graph is checked against the target's operators, run in ONNX Runtime and compared with
    torch before it is written, so only verified files are written.

    Args:
        options: what to export.
        registry: where names are looked up; this process's when not given.

    Raises:
        UsageError: an unknown name, or an operator that the target lacks.
        IpucnnError: the comparison failed, or the file cannot be written.
    """
    registry = registry or current_registry()
    if options.file.output:
        require_writable(options.file.output)
    target = read_by(registry.get_typed(BackendSpec, options.file.target), registry)
    chosen_opset(options.file.opset, target)  # before weights are fetched
    built = _model(options, registry)
    size = built.input_size
    provider = registry.provider_of(built.spec)
    what = f"model {built.spec.name!r}" + ("" if provider.builtin else f" of {provider.label}")
    plan = ExecutionPlan(
        micro_batch=options.file.batch_size, precision="32.32",
        normalisation=options.file.normalization_location,
        eight_bit_io=options.file.normalization_location == "device",
        preprocessing=built.preprocessing)
    module, images = graph_module(built.module, plan, size)
    if options.file.dynamic_batch:
        images = images.expand(2, *images.shape[1:])  # tracing may treat 1 as constant
    proto = exported(module, images, target,
                     Tracing(options.file.opset, options.file.dynamic_batch), what)
    if options.file.precision == "16.16":
        proto = in_float16(proto)
    batches = COMPARED_BATCHES if options.file.dynamic_batch else (options.file.batch_size,)
    tolerance = TOLERANCE[options.file.precision]
    dtype = images.numpy().dtype.name
    examples = [torch.from_numpy(random_images((batch, *images.shape[1:]), dtype,
                                               options.network.seed)) for batch in batches]
    differences = compare(proto, module, examples, tolerance, what)
    provenance = {"weights": asdict(built.weights), "precision": options.file.precision,
                  "options": options.recorded(), "ipucnn": __version__, "torch": torch.__version__}
    Metadata(replace(built.card, provenance=provenance),
             options.file.normalization_location).embed(proto)
    content = proto.SerializeToString()
    path = _path(options, built.spec.name)
    write_bytes(str(path), content)
    return ExportResult(
        path=str(path), model=built.spec.name, target=target.name, size=len(content),
        opset=opset_of(proto), ir_version=proto.ir_version,
        input={"type": str(images.dtype).replace("torch.", ""),
               "shape": [None if options.file.dynamic_batch else options.file.batch_size,
                         3, size, size]},
        operators=dict(sorted(Counter(node.op_type for node in proto.graph.node).items())),
        weights=built.weights.summary(), tolerance=tolerance, differences=dict(differences))


def read_by(spec: BackendSpec, registry: Registry) -> OnnxTarget:
    """Return the ONNX target of a backend, even if it cannot be used here.

    Raises:
        UsageError: the backend does not read ONNX.
    """
    if not spec.onnx:
        reading = [other.name for other in (
            registry.get_typed(BackendSpec, name) for name in registry.names("backend"))
            if other.onnx]
        raise UsageError(f"backend {spec.name!r} is not an export target",
                         "targets: " + ", ".join(reading))
    target: OnnxTarget = import_target(spec.onnx)
    return target


def _model(options: ExportOptions, registry: Registry) -> BuiltModel:
    """Return the model to export."""
    registry.get_typed(ModelSpec, options.network.model)
    registry.get_typed(NormLayerSpec, options.network.normlayer)
    with seeded(options.network.seed):
        return build_model(options.network, options.plugins, registry)


def _path(options: ExportOptions, model: str) -> Path:
    if options.file.output:
        return Path(options.file.output)
    name = "model.onnx" if options.file.dynamic_batch else f"model_{options.file.batch_size}.onnx"
    return Path(options.file.model_path) / model / name
