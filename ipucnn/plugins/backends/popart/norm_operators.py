"""Converts norm layers of exported graphs to PopART operators that match torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Set

import numpy

from ipucnn.core.errors import UsageError
from ipucnn.plugins.backends.popart.placing import module_of

if TYPE_CHECKING:
    import onnx

DOMAIN = "ai.graphcore"


def batch_norms(proto: onnx.ModelProto, learning: Set[str]) -> List[onnx.NodeProto]:
    """Convert norm layers for training in PopART; return those with running statistics.

    ONNX's operator has the variance of the population where torch and PopART's own have that of a
    sample. With frozen statistics it has no gradient in PopART: it is replaced by the equivalent
    product and sum.

    Raises:
        UsageError: such a layer has trainable parameters.
    """
    from onnx import helper, numpy_helper

    values = {one.name: one for one in proto.graph.initializer}
    nodes, keeping = [], []
    for node in proto.graph.node:
        nodes.append(node)
        if node.op_type != "BatchNormalization":
            continue
        if len(node.output) == 5:
            node.domain = DOMAIN
            keeping.append(node)
            continue
        if learning & set(node.input[1:]):
            raise UsageError(f"norm layer {module_of(node.name)!r} would be trained while its "
                             "running statistics are frozen, which PopART does not support",
                             "freeze its parameters too, or put it into training mode")
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        weight, bias, mean, variance = (
            numpy_helper.to_array(values[name]).reshape(-1, 1, 1) for name in node.input[1:])
        factor = weight / numpy.sqrt(variance + numpy.float32(epsilon))
        out = node.output[0]
        names = [out + "/factor", out + "/shift", out + "/product"]
        proto.graph.initializer.extend(map(
            numpy_helper.from_array, (factor, bias - mean * factor), names[:2]))
        nodes[-1:] = [
            helper.make_node("Mul", [node.input[0], names[0]], [names[2]], name=node.name),
            helper.make_node("Add", [names[2], names[1]], [out], name=node.name)]
    _replace_nodes(proto, nodes)
    return keeping


def group_norms(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Convert each group norm to one operator, and return the model.

    ONNX has no such operator before operator set 18: the exporter normalises groups as channels
    of another shape, and applies weight and bias after it. PopART's `--enable-fast-groupnorm` is
    only for its own.

    Args:
        proto: the model; changed in place.
    """
    from onnx import helper

    made: Dict[str, onnx.NodeProto] = {}
    gone: Set[str] = set()
    graph = _Links(proto)
    for node in proto.graph.node:
        if node.op_type != "InstanceNormalization":
            continue
        before = graph.made_by(node.input[0], "Reshape")
        after = graph.only_user(node.output[0], "Reshape")
        scaled = after and graph.only_user(after.output[0], "Mul")
        shifted = scaled and graph.only_user(scaled.output[0], "Add")
        if before is None or after is None or scaled is None or shifted is None:
            continue
        shape, ones, zeros = map(graph.constant, (before.input[1], *node.input[1:]))
        if shape is None or len(shape) != 3 or ones is None or (ones != 1).any() \
                or zeros is None or zeros.any():
            continue  # of a file exported by other means
        out = shifted.output[0]
        weight, bias = (graph.vector(next(name for name in used.input if name != given))
                        for used, given in ((scaled, after.output[0]),
                                            (shifted, scaled.output[0])))
        if weight is None or bias is None:
            continue
        own = helper.make_node(
            "GroupNormalization", [before.input[0], weight, bias],
            [out, out + "/mean", out + "/deviation"], name=node.name, domain=DOMAIN,
            num_groups=int(shape[1]))
        own.attribute.extend(one for one in node.attribute if one.name == "epsilon")
        made[out] = own
        gone.update(one.output[0] for one in (before, node, after, scaled))
    if made:
        _replace_nodes(proto, [made.get(node.output[0], node) for node in proto.graph.node
                               if node.output[0] not in gone])
    return proto


class _Links:
    """The producer and the consumers of each value."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self._graph = proto.graph
        self._makers = {name: node for node in proto.graph.node for name in node.output}
        self._users: Dict[str, List[onnx.NodeProto]] = {}
        for node in proto.graph.node:
            for name in node.input:
                self._users.setdefault(name, []).append(node)
        self._weights = {one.name: one for one in proto.graph.initializer}

    def made_by(self, name: str, kind: str) -> Optional[onnx.NodeProto]:
        node = self._makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def only_user(self, name: str, kind: str) -> Optional[onnx.NodeProto]:
        users = self._users.get(name, [])
        return users[0] if len(users) == 1 and users[0].op_type == kind else None

    def constant(self, name: str) -> Any:
        """Return the value of an initialiser or a constant; None for others."""
        from onnx import numpy_helper

        maker = self.made_by(name, "Constant")
        tensor = self._weights.get(name) if maker is None else next(
            (one.t for one in maker.attribute if one.name == "value"), None)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def vector(self, name: str) -> Optional[str]:
        """Return the value of one dimension that `name` repeats over pixels, None without one."""
        from onnx import numpy_helper

        spread = self.made_by(name, "Unsqueeze")
        if spread is not None:
            return str(spread.input[0])
        value, flat = self.constant(name), name + "/vector"
        if value is None:
            return None
        if flat not in self._weights:
            self._weights[flat] = numpy_helper.from_array(value.reshape(-1), flat)
            self._graph.initializer.append(self._weights[flat])
        return flat


def _replace_nodes(proto: onnx.ModelProto, nodes: List[onnx.NodeProto]) -> None:
    """Replace the nodes of a graph, with PopART's own among them, and prune dead ones."""
    from onnx import helper

    read = {name for node in nodes for name in node.input}
    read.update(output.name for output in proto.graph.output)
    nodes = [node for node in nodes if read & set(node.output)]
    read = {name for node in nodes for name in node.input}
    weights = [one for one in proto.graph.initializer if one.name in read]
    for field, entries in ((proto.graph.node, nodes), (proto.graph.initializer, weights)):
        del field[:]
        field.extend(entries)
    if not any(entry.domain == DOMAIN for entry in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))
