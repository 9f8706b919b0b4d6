"""Adds mixup and cutmix to a training graph; `ipucnn.data.mixup` states what they compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import numpy

from ipucnn.core.execution.mixing import MixOptions
from ipucnn.onnx.graph_entries import replace_all
from ipucnn.plugins.backends.popart.norm_operators import DOMAIN

if TYPE_CHECKING:
    import onnx

COEFFICIENTS, BOXES, KEPT = "coefficients", "boxes", "kept"
"""Inputs of the graph: `Mixing`'s fields of one micro-batch, single precision."""


def mixing_inputs(mix: MixOptions, micro_batch: int) -> Dict[str, List[int]]:
    """Return the shapes of the inputs that mixing needs; empty without it."""
    shapes = {}
    if mix.mixup_alpha:
        shapes[COEFFICIENTS] = [micro_batch]
    if mix.cuts:
        shapes.update({BOXES: [1, 4], KEPT: [1]})
    return shapes


def mix_images(proto: onnx.ModelProto, images: str, mix: MixOptions) -> None:
    """Mix the images of a micro-batch before anything else is computed from them.

    Mixing and normalising commute, because an image's shares add up to one.

    Args:
        proto: the model, in the types that it computes in; changed in place.
        images: name of its image input.
        mix: the options of mixing.
    """
    from onnx import TensorProto, helper

    entry = next(one for one in proto.graph.input if one.name == images)
    batch, _, height, width = (dim.dim_value for dim in entry.type.tensor_type.shape.dim)
    half = any(one.data_type == TensorProto.FLOAT16 for one in proto.graph.initializer) \
        or entry.type.tensor_type.elem_type == TensorProto.FLOAT16
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    for name, shape in mixing_inputs(mix, batch).items():
        proto.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    front = _Front(images)
    value = front.add("Cast", [images], to=kind)
    if mix.mixup_alpha:
        share = front.add("Reshape", [front.add("Cast", [COEFFICIENTS], to=kind),
                                      front.constant([batch, 1, 1, 1])])
        one = front.constant(1, numpy.float16 if half else numpy.float32)
        own = front.add("Mul", [share, value])
        other = front.add("Mul", [front.add("Sub", [one, share]), front.rolled(value, 1, batch)])
        value = front.add("Add", [own, other])
    if mix.cuts:
        value = front.add("Where", [front.inside(height, width), front.rolled(value, 2, batch),
                                    value])
    # images need no gradient
    value = front.add("Detach", [value], domain=DOMAIN)
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            if name == images:
                node.input[position] = value
    replace_all(proto.graph.node, [*front.nodes, *proto.graph.node])
    if not any(one.domain == DOMAIN for one in proto.opset_import):
        proto.opset_import.append(helper.make_opsetid(DOMAIN, 1))


class _Front:
    """Nodes that come before all others of a graph."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.nodes: List[onnx.NodeProto] = []

    def add(self, kind: str, inputs: Sequence[str], domain: str = "", outputs: int = 1,
            **attributes: Any) -> Any:
        """Add a node; return the name of its output, or the names of several."""
        from onnx import helper

        made = [f"{self._name}/mixing/{len(self.nodes)}.{place}" for place in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, made, domain=domain, **attributes))
        return made[0] if outputs == 1 else made

    def constant(self, value: Any, kind: Any = numpy.int64) -> str:
        """Add a constant; return its name."""
        from onnx import numpy_helper

        return str(self.add("Constant", [], value=numpy_helper.from_array(
            numpy.array(value, kind))))

    def rolled(self, value: str, by: int, batch: int) -> str:
        """Return the images, each replaced by the image `by` positions before it."""
        by %= batch
        if not by:
            return value
        parts = [self.add("Slice", [value, self.constant([first]), self.constant([last]),
                                    self.constant([0])])
                 for first, last in ((batch - by, batch), (0, batch - by))]
        return str(self.add("Concat", parts, axis=0))

    def inside(self, height: int, width: int) -> str:
        """Return the mask of the pixels inside the box of the micro-batch, `(height, width)`."""
        top, left, bottom, right = self.add("Split", [BOXES], outputs=4, axis=1)
        y = self.constant(numpy.arange(height).reshape(-1, 1), numpy.float32)
        x = self.constant(numpy.arange(width).reshape(1, -1), numpy.float32)
        rows, columns = (
            self.add("And", [self.add("Not", [self.add("Less", [place, first])]),
                             self.add("Less", [place, last])])
            for place, first, last in ((y, top, bottom), (x, left, right)))
        return str(self.add("And", [rows, columns]))


def mixed_shares(builder: Any, labels: str, batch: int, mix: MixOptions
                 ) -> List[Tuple[str, Optional[str]]]:
    """Add the labels that each image is mixed from, and their shares; see `mixed_labels`.

    Args:
        builder: a `popart.Builder` of the graph.
        labels: name of the labels, int32 `(B,)`.
        batch: B.
        mix: the options of mixing.
    """
    ops = builder.aiOnnxOpset11

    def constant(values: Any, kind: Any = numpy.int64) -> str:
        return str(ops.constant(numpy.array(values, kind)))

    def rolled(value: str, by: int) -> str:
        by %= batch
        if not by:
            return value
        zero = constant([0])
        return str(ops.concat(
            [ops.slice([value, constant([first]), constant([last]), zero])
             for first, last in ((batch - by, batch), (0, batch - by))], 0))

    def rest(share: str) -> str:
        return str(ops.sub([constant([1], numpy.float32), share]))

    if not mix.cuts:
        return [(labels, COEFFICIENTS), (rolled(labels, 1), rest(COEFFICIENTS))]
    kept = ops.add([KEPT, constant(numpy.zeros(batch), numpy.float32)])
    if not mix.mixup_alpha:
        return [(labels, kept), (rolled(labels, 2), rest(kept))]
    own, before = COEFFICIENTS, rolled(COEFFICIENTS, 2)
    return [(labels, ops.mul([own, kept])),
            (rolled(labels, 1), ops.mul([rest(own), kept])),
            (rolled(labels, 2), ops.mul([before, rest(kept)])),
            (rolled(labels, 3), ops.mul([rest(before), rest(kept)]))]
