"""Builds the training graph: an exported model with its loss, for PopART."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, List, Sequence, Tuple

import popart
import torch

from ipucnn.core.execution.losses import CrossEntropyForm
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import StateDict
from ipucnn.models.tracing import execution_order, recompute_points, resolve_splits
from ipucnn.onnx.tracing_export import INPUT, OUTPUT, Tracing, exported
from ipucnn.plugins.backends.popart.graphs import in_half
from ipucnn.plugins.backends.popart.norm_operators import batch_norms, group_norms
from ipucnn.plugins.backends.popart.operators import TARGET
from ipucnn.plugins.backends.popart.placing import module_of, place, stages_of

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class TrainingGraph:
    """A model with its loss.

    Attributes:
        proto: the ONNX model; its initialisers are named as in the state dictionary.
        images, labels: its inputs; the labels are int32 `(B,)`.
        loss: the mean loss of a micro-batch, times `ExecutionPlan.summed_share`, a float32 scalar.
        predicted: the class of each sample, int32 `(B,)`.
        trained: the initialisers that are updated.
        frozen: digest of the values that are not trained and so are part of the program.
        norms: paths of the norm layers that keep running statistics.
        random: whether it draws random numbers.
        splits: where its pipeline stages begin.
        kept: outputs that recomputation starts from.
    """

    proto: bytes
    images: str
    labels: str
    loss: str
    predicted: str
    trained: Tuple[str, ...]
    frozen: str
    norms: Tuple[str, ...]
    random: bool
    splits: Tuple[str, ...]
    kept: int


def training_graph(model: torch.nn.Module, images: torch.Tensor, plan: ExecutionPlan,
                   loss: CrossEntropyForm, proportions: Sequence[float]) -> TrainingGraph:
    """Return the training graph of a plan.

    Args:
        model: in training mode, frozen parameters without gradient.
        images: a micro-batch in the model's input format.
        plan: of the training.
        loss: the loss, without class weights.
        proportions: of tile memory for temporary values; none, one, or one for each stage.

    Raises:
        UsageError: the model needs an operator that PopART lacks, or a split is unknown.
    """
    splits = resolve_splits(model, plan.pipeline_splits, images.shape[2])
    modules = execution_order(model, images.shape[2]) if splits else []
    points = recompute_points(model, plan.recompute_checkpoints) \
        if plan.recompute == "manual" else []
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    proto = exported(model, images, TARGET, Tracing(training=True))
    model.load_state_dict(state)  # tracing changes the running statistics
    put_values(proto, state)
    norms = batch_norms(group_norms(proto), learning)
    moving = {name for node in norms for name in node.input[3:]}
    given = {one.name: one for one in proto.graph.initializer}
    fixed = [name for name in given if name not in learning | moving]
    builder = popart.Builder(_in_types(proto, fixed, plan.half))
    labels = builder.addInputTensor(popart.TensorInfo("INT32", [plan.micro_batch]), "labels")
    value, predicted = _add_loss(builder, labels, loss, plan)
    nodes = _nodes(builder)
    place(builder, nodes, stages_of(nodes, splits, modules) if splits else None, proportions)
    kept = _recompute_between(builder, nodes, points)
    return TrainingGraph(
        builder.getModelProto(), INPUT, labels, value, predicted,
        tuple(name for name in given if name in learning),
        sha256(b"".join(given[name].SerializeToString() for name in fixed)).hexdigest(),
        tuple(node.input[3].rpartition(".")[0] for node in norms),
        any(node.op_type.startswith(("Dropout", "Random")) for node in nodes), tuple(splits), kept)


def put_values(proto: onnx.ModelProto, values: StateDict) -> None:
    """Replace initialisers by the values of the same names, keeping their types."""
    from onnx import helper, numpy_helper

    for tensor in proto.graph.initializer:
        if tensor.name in values:
            array = values[tensor.name].detach().cpu().numpy()
            tensor.CopyFrom(numpy_helper.from_array(
                array.astype(helper.tensor_dtype_to_np_dtype(tensor.data_type)), tensor.name))


def _in_types(proto: onnx.ModelProto, fixed: List[str], half: bool) -> bytes:
    """Return a graph that computes in its precision and does not train what is `fixed`.

    An initialiser that the loss depends on is trained, so frozen values become constants.
    """
    transformer = popart.GraphTransformer(in_half(proto) if half else proto.SerializeToString())
    transformer.convertInitializersToConstants(fixed)
    return bytes(transformer.getModelProto())


def _add_loss(builder: Any, labels: str, loss: CrossEntropyForm,
              plan: ExecutionPlan) -> Tuple[str, str]:
    """Add the loss in single precision and the predicted classes; return their names.

    The loss is computed from log-probabilities, whose gradients are correct where probabilities
    vanish; PopART's own loss of probabilities would hide logits that are not finite.
    """
    ops, own = builder.aiOnnxOpset11, builder.aiGraphcore
    logits = ops.cast([OUTPUT], "FLOAT") if plan.half else OUTPUT
    predicted = ops.argmax([logits], axis=1, keepdims=0)
    largest = own.detach([ops.reducemax([logits], axes=[1], keepdims=1)])
    shifted = ops.sub([logits, largest])
    log_p = ops.sub([shifted, ops.log([ops.reducesum([ops.exp([shifted])], axes=[1],
                                                     keepdims=1)])])
    value = own.nllloss([log_p, labels], popart.ReductionType.Mean, inputIsLogProbability=True)
    s = loss.label_smoothing
    if s:
        value = ops.sub([
            own.scale([value], 1 - s),
            own.scale([ops.reducemean([log_p], axes=[0, 1], keepdims=0)], s)])
    if plan.summed_share != 1:
        value = own.scale([value], plan.summed_share)
    return value, predicted


def _nodes(builder: Any) -> List[onnx.NodeProto]:
    import onnx

    return list(onnx.load_from_string(builder.getModelProto()).graph.node)


def _recompute_between(builder: Any, nodes: List[onnx.NodeProto], points: List[str]) -> int:
    """Recompute everything but the outputs of some modules; return how many are kept.

    Args:
        builder: of the graph.
        nodes: of the graph, in order.
        points: paths of the modules; if empty, nothing is marked.
    """
    if not points:
        return 0
    last = {}
    for node in nodes:
        within = module_of(node.name) + "/"
        for path in points:
            if within.startswith(path + "/"):
                last[path] = node.output[0]
    kept = set(last.values())
    for node in nodes:
        if node.op_type != "Constant" and node.output[0] not in kept:
            builder.recomputeOutput(set(node.output), popart.RecomputeType.Recompute)
    return len(kept)
