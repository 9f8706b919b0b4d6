"""Transfers through IO tiles, which overlap with computation (`--num-io-tiles`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import popart

from ipucnn.core.execution.plan import ExecutionPlan

if TYPE_CHECKING:
    import onnx

BUFFERS = 3
"""Default number of micro-batches that are fetched ahead (`--prefetch-depth`)."""


def _strategy(plan: ExecutionPlan) -> Any:
    """Return how far ahead transfers are executed.

    Within an update that accumulates, the next micro-batch is fetched early, which takes less
    memory than fetching those of the next update.
    """
    strategies = popart.ExchangeStrategy
    return (strategies.OverlapInnerLoop if plan.gradient_accumulation > 1
            else strategies.OverlapLoops)


def input_settings(plan: ExecutionPlan, tiles: int) -> Any:
    """Return the `popart.InputSettings` of an input.

    Args:
        plan: of the program.
        tiles: value of `--num-io-tiles`.
    """
    if not tiles:
        return popart.InputSettings()
    return popart.InputSettings(popart.TileSet.IO, _strategy(plan))


def returned(plan: ExecutionPlan, tiles: int) -> Any:
    """Return the `popart.AnchorReturnType` of a result of every micro-batch; see above."""
    if not tiles:
        return popart.AnchorReturnType("All")
    return popart.AnchorReturnType("All", popart.TileSet.IO, _strategy(plan))


def mark_inputs(proto: onnx.ModelProto, plan: ExecutionPlan) -> None:
    """Transfer the inputs of a model through IO tiles.

    A builder gives settings only to inputs that it adds itself, and writes them to the model's
    metadata; they are copied from a builder with inputs of the same names.

    Args:
        proto: the model; changed in place.
        plan: of the program.
    """
    import onnx
    from onnx import helper

    weights = {one.name for one in proto.graph.initializer}
    builder = popart.Builder()
    for entry in proto.graph.input:
        if entry.name in weights:
            continue
        kind = entry.type.tensor_type
        name = onnx.TensorProto.DataType.Name(kind.elem_type)
        added = builder.addInputTensor(
            popart.TensorInfo(name, [dim.dim_value for dim in kind.shape.dim]),
            input_settings(plan, 1), entry.name)
        if added != entry.name:
            raise ValueError(f"a new builder calls its input {added!r}, not {entry.name!r}")
    made = onnx.load_from_string(builder.getModelProto())
    metadata = {one.key: one.value for one in (*proto.metadata_props, *made.metadata_props)}
    helper.set_model_props(proto, metadata)


def marked(model: bytes, plan: ExecutionPlan) -> bytes:
    """Return a model with inputs that are transferred through IO tiles."""
    import onnx

    proto = onnx.load_from_string(model)
    mark_inputs(proto, plan)
    return bytes(proto.SerializeToString())
