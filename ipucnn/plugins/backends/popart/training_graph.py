"""Builds the training graph: an exported model with its loss, for PopART."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, List, Set, Tuple

import popart
import torch

from ipucnn.core.errors import IpucnnError, UsageError
from ipucnn.core.execution.losses import CrossEntropyForm
from ipucnn.core.execution.mixing import MixOptions
from ipucnn.core.execution.plan import ExecutionPlan
from ipucnn.core.execution.training_session import StateDict
from ipucnn.models.tracing import execution_order, recompute_points, resolve_splits
from ipucnn.onnx.graph_entries import copied
from ipucnn.onnx.tracing_export import INPUT, OUTPUT, Tracing, exported
from ipucnn.plugins.backends.popart.graphs import in_half, in_type, master_weights
from ipucnn.plugins.backends.popart.mixing_graph import mix_images, mixed_shares
from ipucnn.plugins.backends.popart.norm_operators import batch_norms, group_norms
from ipucnn.plugins.backends.popart.operators import TARGET
from ipucnn.plugins.backends.popart.options import PopArtOptions
from ipucnn.plugins.backends.popart.placing import module_of, outputs_of, place, stages_of
from ipucnn.plugins.backends.popart.prelu_gradient import differentiable_prelu
from ipucnn.plugins.backends.popart.transfers import input_settings, mark_inputs

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
        norms: paths of the norm layers that keep running statistics.
        random: whether it draws random numbers.
        splits: the begins of its pipeline stages.
        kept: outputs that are stored for recomputation.
    """

    proto: bytes
    images: str
    labels: str
    loss: str
    predicted: str
    trained: Tuple[str, ...]
    norms: Tuple[str, ...]
    random: bool
    splits: Tuple[str, ...]
    kept: int


def training_graph(model: torch.nn.Module, images: torch.Tensor, plan: ExecutionPlan,
                   loss: CrossEntropyForm, mix: MixOptions, options: PopArtOptions
                   ) -> TrainingGraph:
    """Return the training graph of a plan.

    Args:
        model: in training mode, frozen parameters without gradient.
        images: a micro-batch in the model's input format.
        plan: of the training.
        loss: the loss, without class weights.
        mix: how images are mixed.
        options: of the backend.

    Raises:
        UsageError: PopART does not support an operator of the model, or a split is unknown.
    """
    proportions, tiles = options.available_memory_proportion, options.num_io_tiles
    splits = resolve_splits(model, plan.pipeline_splits, images.shape[2])
    modules = execution_order(model, images.shape[2]) if splits else []
    points = recompute_points(model, plan.recompute_checkpoints) \
        if plan.recompute == "manual" else []
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    proto = _exported(model, images)
    model.load_state_dict(state)  # tracing changes the running statistics
    put_values(proto, tensors_of(model))
    norms = batch_norms(group_norms(differentiable_prelu(proto)), learning)
    moving = {name for node in norms for name in node.input[3:]}
    given = {one.name: one for one in proto.graph.initializer}
    fixed = [name for name in given if name not in learning | moving]
    network = _in_types(proto, plan, _Parts(set(fixed), learning, moving), mix)
    if tiles:
        mark_inputs(network, plan)
    builder = popart.Builder(network.SerializeToString())
    labels = builder.addInputTensor(
        popart.TensorInfo("INT32", [plan.micro_batch]), input_settings(plan, tiles), "labels")
    value, predicted = _add_loss(builder, labels, loss, plan, mix)
    nodes = _nodes(builder)
    place(builder, nodes, stages_of(nodes, splits, modules) if splits else None, proportions)
    # not the loss, nor the predicted classes, which do not lead to it
    kept = _recompute_between(builder, nodes[:len(network.graph.node)], points)
    return TrainingGraph(
        builder.getModelProto(), INPUT, labels, value, predicted,
        tuple(name for name in given if name in learning),
        tuple(node.input[3].rpartition(".")[0] for node in norms),
        any(node.op_type.startswith(("Dropout", "Random")) for node in nodes), tuple(splits), kept)


def tensors_of(model: torch.nn.Module) -> StateDict:
    """Return parameters and buffers; a state dictionary may have others (padded weights)."""
    return dict(chain(model.named_parameters(), model.named_buffers()))


def put_values(proto: onnx.ModelProto, values: StateDict) -> None:
    """Replace initialisers by the values of the same names, keeping their types."""
    from onnx import helper, numpy_helper

    for tensor in proto.graph.initializer:
        if tensor.name in values:
            array = values[tensor.name].detach().cpu().numpy()
            tensor.CopyFrom(numpy_helper.from_array(
                array.astype(helper.tensor_dtype_to_np_dtype(tensor.data_type)), tensor.name))


def _exported(model: torch.nn.Module, images: torch.Tensor) -> onnx.ModelProto:
    """Return the model as ONNX, in single precision.

    Raises:
        UsageError: a batch norm has one value for each channel.
    """
    try:
        return exported(model, images, TARGET, Tracing(training=True))
    except IpucnnError as error:  # an error in torch; PopART would divide by N - 1
        if "Expected more than 1 value per channel" not in str(error):
            raise
        raise UsageError("a batch norm has one value for each channel to normalise, whose sample "
                         "variance is infinite on the device",
                         "use a larger '--batch-size' or images, or '--normlayer group'") from error


@dataclass(frozen=True)
class _Parts:
    """Names of initialisers: those that are not trained, those that are, running statistics."""

    fixed: Set[str]
    learning: Set[str]
    moving: Set[str]


def _in_types(proto: onnx.ModelProto, plan: ExecutionPlan, parts: _Parts,
              mix: MixOptions) -> onnx.ModelProto:
    """Return a graph that computes in its precision and does not train frozen values.

    An initialiser that the loss depends on is trained, so frozen values become constants. Running
    statistics are in single precision: in half, a tenth of a new value would often be lost.

    Args:
        proto: the network, in single precision.
        plan: of the training.
        parts: its initialisers.
        mix: how images are mixed.
    """
    import onnx

    if plan.half:
        exact = {one.name: copied(one) for one in proto.graph.initializer}
        proto = onnx.load_from_string(in_half(proto))
        names = parts.moving
        if plan.precision == "16.32":
            names = names | parts.learning
            proto = master_weights(proto, parts.learning)
        for tensor in proto.graph.initializer:
            if tensor.name in names:  # not values that were rounded to half precision
                tensor.CopyFrom(exact[tensor.name])
        in_type(proto, names, onnx.TensorProto.FLOAT)
    transformer = popart.GraphTransformer(proto.SerializeToString())
    transformer.convertInitializersToConstants(
        [one.name for one in proto.graph.initializer if one.name in parts.fixed])
    proto = onnx.load_from_string(transformer.getModelProto())
    if mix.enabled:
        mix_images(proto, INPUT, mix)
    return proto


def _add_loss(builder: Any, labels: str, loss: CrossEntropyForm, plan: ExecutionPlan,
              mix: MixOptions) -> Tuple[str, str]:
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

    def likelihood(target: str, reduction: Any) -> str:
        return str(own.nllloss([log_p, target], reduction, inputIsLogProbability=True))

    if mix.enabled:
        terms = [ops.mul([likelihood(target, popart.ReductionType.NoReduction), share])
                 for target, share in mixed_shares(builder, labels, plan.micro_batch, mix)]
        value = ops.reducemean([ops.sum(terms)], axes=[0], keepdims=0)
    else:
        value = likelihood(labels, popart.ReductionType.Mean)
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
        nodes: of the network, in order.
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
            builder.recomputeOutputInBackwardPass(outputs_of(node),
                                                  popart.RecomputeType.Recompute)
    return len(kept)
