"""Describes and checks the subset of ONNX that an engine supports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Iterable, Iterator, Mapping, Optional, Set, Tuple

from ipucnn.core.errors import UnsupportedNetworkError

if TYPE_CHECKING:
    import onnx

INSTALL = "pip install 'ipucnn[onnxruntime]'"

MOST_BYTES = 2**31 - 1
"""Size limit of a model: a protocol buffer holds less than 2 GiB."""


@dataclass(frozen=True)
class OnnxTarget:
    """The subset of ONNX that an engine supports.

    Attributes:
        name: the engine, for messages.
        opsets: the oldest and the newest version of the ai.onnx operator set; the newest is 0 for
            an engine whose releases differ, and which itself reports missing operators.
        ir_version: the newest version of the file format; 0 for any.
        operators: supported ai.onnx operators, and the operator-set versions of their
            implementations; an empty tuple for those it rewrites. Empty when the engine checks.
        domains: further supported operator domains.
        rewrite: replaces what the engine lacks in an exported model, which it may change, and
            returns the model; None for nothing.
    """

    name: str
    opsets: Tuple[int, int]
    ir_version: int = 0
    operators: Mapping[str, Tuple[int, ...]] = field(default_factory=dict)
    domains: Tuple[str, ...] = ()
    rewrite: Optional[Callable[[onnx.ModelProto], onnx.ModelProto]] = None

    def check(self, model: onnx.ModelProto, what: str) -> None:
        """Raise an error for a model that the engine cannot read.

        Args:
            model: with any operators.
            what: the model, for messages.

        Raises:
            UnsupportedNetworkError: names the operator set, the format version or the operators.
        """
        opset = opset_of(model)
        self.check_versions(opset, model.ir_version, what)
        missing = sorted(set(self._missing(model, opset)))
        if missing:
            raise UnsupportedNetworkError(
                f"{what} needs operators that {self.name} lacks: " + ", ".join(missing),
                "use another network, norm layer or engine")

    def check_versions(self, opset: int, ir_version: int, what: str) -> None:
        """Raise an error for an operator set or a format version that the engine cannot read.

        Args:
            opset: of the model.
            ir_version: the version of its format.
            what: the model, for messages.

        Raises:
            UnsupportedNetworkError: names the version.
        """
        oldest, newest = self.opsets
        if opset < oldest or (newest and opset > newest):
            reads = f"{oldest} to {newest}" if newest else f"{oldest} and newer"
            raise UnsupportedNetworkError(
                f"{what} has operator set {opset}, and {self.name} reads {reads}",
                f"export it again: 'ipucnn export --opset {newest if opset > oldest else oldest}'")
        if self.ir_version and ir_version > self.ir_version:
            raise UnsupportedNetworkError(
                f"{what} has format version (IR) {ir_version}, and {self.name} reads up to "
                f"{self.ir_version}", f"export it again: 'ipucnn export --opset {newest}'")

    def _missing(self, model: onnx.ModelProto, opset: int) -> Iterator[str]:
        import onnx

        if not self.operators:
            return
        for node in nodes(model.graph.node):
            if node.domain not in ("", "ai.onnx"):
                if node.domain not in self.domains:
                    yield f"{node.domain}.{node.op_type}"
            else:
                known = self.operators.get(node.op_type)
                if known is None:
                    yield node.op_type
                elif known:
                    since = onnx.defs.get_schema(node.op_type, opset).since_version
                    if since not in known:
                        yield f"{node.op_type}-{since}"


def nodes(given: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes, each followed by those of its branches and loop bodies."""
    for node in given:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from nodes(graph.node)


def subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield the branches and loop bodies of a graph, and those within them."""
    for node in nodes(graph.node):
        yield from bodies_of(node)


def bodies_of(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the branches or the loop body of a node."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def captured(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names of outer values that the branches or the loop body of a node read."""
    for graph in bodies_of(node):
        own = defined(graph)
        for inner in graph.node:
            yield from (name for name in (*inner.input, *captured(inner)) if name not in own)
        yield from (entry.name for entry in graph.output if entry.name not in own)


def defined(graph: onnx.GraphProto) -> Set[str]:
    """Return the names of a graph's own values."""
    return {*(entry.name for entry in graph.input), *(tensor.name for tensor in graph.initializer),
            *(name for node in graph.node for name in node.output)}


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the ai.onnx operator set that a model uses."""
    return max((entry.version for entry in model.opset_import
                if entry.domain in ("", "ai.onnx")), default=1)
