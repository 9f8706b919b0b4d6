"""The job behind `ipucnn export`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import torch  # noqa: TID253

import ipucnn
from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.files import write_bytes
from ipucnn.core.options import ExportOptions, TrainOptions
from ipucnn.core.options.declaration import build
from ipucnn.core.registry.loading import import_target
from ipucnn.core.registry.records import BackendSpec, ModelSpec, NormLayerSpec
from ipucnn.core.registry.registry import Registry
from ipucnn.core.registry.registry import registry as current_registry
from ipucnn.data.remote.download import sha256
from ipucnn.inference.scores import IMAGENET_CLASSES, names_of_classes
from ipucnn.models.build import BuiltModel, create_model
from ipucnn.models.norms import NormOptions
from ipucnn.models.weights import WeightsReport
from ipucnn.onnx.backend import graph_module
from ipucnn.onnx.examples import random_images
from ipucnn.onnx.export import chosen_opset, exported
from ipucnn.onnx.metadata import Metadata
from ipucnn.onnx.precision import in_float16
from ipucnn.onnx.target import OnnxTarget, opset_of
from ipucnn.onnx.verify import TOLERANCE, compare

COMPARED_BATCHES = (1, 2, 5)
"""Numbers of images with which a file for any number is compared with torch."""


@dataclass
class ExportResult:
    """What `ipucnn export` wrote.

    Attributes:
        path: the file.
        model, target: canonical names.
        size: bytes.
        opset: version of the ai.onnx operator set.
        ir_version: version of the file format.
        input: type and shape of the images; None stands for any number of them.
        operators: how often each is used.
        weights: where they come from.
        tolerance: difference from torch that was allowed, relative to the largest logit.
        differences: those found, by the number of images.
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


def export(options: ExportOptions, registry: Optional[Registry] = None) -> ExportResult:
    """Write a network as an ONNX file that is known to be right.

    It is checked against the target's operators, run in ONNX Runtime and compared with torch
    before it is written, so a file that exists is a good one.

    Args:
        options: what to export.
        registry: where names are looked up; this process's when not given.

    Raises:
        UsageError: an unknown name, or an operator that the target lacks.
        IpucnnError: the comparison failed, or the file cannot be written.
    """
    registry = registry or current_registry()
    target = read_by(registry.get_typed(BackendSpec, options.target), registry)
    chosen_opset(options.opset, target)  # before weights are fetched
    built, class_names = _model(options, registry)
    size = built.input_size
    provider = registry.provider_of(built.spec)
    what = f"model {built.spec.name!r}" + ("" if provider.builtin else f" of {provider.label}")
    plan = ExecutionPlan(
        micro_batch=options.batch_size, precision="32.32",
        normalisation=options.normalization_location,
        eight_bit_io=options.normalization_location == "device")
    module, images = graph_module(built.module, plan, size)
    if options.dynamic_batch:
        images = images.expand(2, *images.shape[1:])  # of one image, tracing may take 1 for fixed
    proto = exported(module, images, target, what=what, opset=options.opset,
                     dynamic_batch=options.dynamic_batch)
    if options.precision == "16.16":
        proto = in_float16(proto)
    batches = COMPARED_BATCHES if options.dynamic_batch else (options.batch_size,)
    tolerance = TOLERANCE[options.precision]
    examples = [random_images((batch, *images.shape[1:]), images.dtype, options.seed)
                for batch in batches]
    differences = compare(proto, module, examples, tolerance, what)
    Metadata(
        model=built.spec.name, input_size=size, normalisation=options.normalization_location,
        class_names=tuple(class_names),
        provenance={"weights": asdict(built.weights), "precision": options.precision,
                    "options": options.as_dict(), "ipucnn": ipucnn.__version__,
                    "torch": torch.__version__}).embed(proto)
    content = proto.SerializeToString()
    path = _path(options, built.spec.name)
    write_bytes(str(path), content)
    return ExportResult(
        path=str(path), model=built.spec.name, target=target.name, size=len(content),
        opset=opset_of(proto), ir_version=proto.ir_version,
        input={"type": str(images.dtype).replace("torch.", ""),
               "shape": [None if options.dynamic_batch else options.batch_size, 3, size, size]},
        operators=dict(sorted(Counter(node.op_type for node in proto.graph.node).items())),
        weights=built.weights.summary(), tolerance=tolerance, differences=dict(differences))


def read_by(spec: BackendSpec, registry: Registry) -> OnnxTarget:
    """Return which ONNX a backend reads, whether or not it can be used here.

    Raises:
        UsageError: it reads none.
    """
    if not spec.onnx:
        reading = [other.name for other in (
            registry.get_typed(BackendSpec, name) for name in registry.names("backend"))
            if other.onnx]
        raise UsageError(f"backend {spec.name!r} reads no ONNX",
                         "targets: " + ", ".join(reading))
    target: OnnxTarget = import_target(spec.onnx)
    return target


def _model(options: ExportOptions, registry: Registry) -> Tuple[BuiltModel, List[str]]:
    """Return the model to export and the names of its classes."""
    if options.checkpoint_path:
        return _stored_model(options, registry)
    spec = registry.get_typed(ModelSpec, options.model)
    registry.get_typed(NormLayerSpec, options.normlayer)
    torch.manual_seed(options.seed)
    built = create_model(
        spec.name, num_classes=options.num_classes, weights=options.weights,
        weights_partial=options.weights_partial, normlayer=options.normlayer,
        norm=NormOptions(options.groupnorm_group_num, options.norm_eps,
                         options.batchnorm_momentum),
        input_padding=options.input_image_padding, model_options=options.model_options,
        input_size=options.input_size, registry=registry)
    return built, _names(built)


def _stored_model(options: ExportOptions, registry: Registry) -> Tuple[BuiltModel, List[str]]:
    from ipucnn.training.checkpoint_folder import entries
    from ipucnn.training.stored import load_stored

    place = Path(str(options.checkpoint_path))
    paths = [entry.path for entry in entries(place)] if place.is_dir() else [place]
    if not paths:
        raise DataError(f"there are no checkpoints in '{place}'",
                        "name a folder that '--checkpoint-path' of a training wrote")
    stored = load_stored(paths[-1])
    if options.ema and stored.ema is None:
        raise UsageError(f"checkpoint '{paths[-1]}' has no moving average", "leave '--ema' out")
    weights = stored.ema if options.ema and stored.ema is not None else stored.weights
    trained = build(TrainOptions, {**stored.options, "model": stored.name, "weights": "random",
                                   "checkpoint_save_steps": None,
                                   "checkpoint_save_minutes": None})
    built = create_model(
        trained.model, num_classes=len(stored.class_names) or trained.num_classes,
        weights="random", normlayer=trained.normlayer,
        norm=NormOptions(trained.groupnorm_group_num, trained.norm_eps,
                         trained.batchnorm_momentum),
        input_padding=trained.input_image_padding, model_options=trained.model_options,
        input_size=trained.input_size, registry=registry)
    built.module.load_state_dict(weights)
    report = WeightsReport(source=str(paths[-1]), path=str(paths[-1]), sha256=sha256(paths[-1]),
                           loaded=len(weights))
    return (BuiltModel(built.module, built.spec, report, built.input_size, built.num_classes),
            list(stored.class_names) or _names(built))


def _names(built: BuiltModel) -> List[str]:
    """Return what the outputs mean, as far as that is known."""
    return names_of_classes(IMAGENET_CLASSES) if built.num_classes == IMAGENET_CLASSES else []


def _path(options: ExportOptions, model: str) -> Path:
    if options.output:
        return Path(options.output)
    name = "model.onnx" if options.dynamic_batch else f"model_{options.batch_size}.onnx"
    return Path(options.model_path) / model / name
