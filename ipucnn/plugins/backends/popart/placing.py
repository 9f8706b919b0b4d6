"""Assigns the nodes of a graph to pipeline stages, and so to the IPUs of a replica."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence, Set

from ipucnn.core.errors import UsageError

PIPELINE_STAGE = "__pipeline_stage"
"""The attribute of a node that holds its stage. Source: PopART's `sPipelineStageAttribute`."""

_WITH_PLANS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""Operators whose temporary values `--available-memory-proportion` limits."""


def stages_of(nodes: Sequence[Any], splits: Sequence[str], modules: Sequence[str]) -> List[int]:
    """Return the stage of each node.

    The exporter names a node after its module, and writes nodes in execution order. A stage begins
    at the first node of its split's module, or, if that module has no nodes left because it was
    folded into another, of a later module.

    Args:
        nodes: ONNX nodes in order.
        splits: paths of the modules that begin stages 1, 2, ...; `layer1/2`.
        modules: paths of all modules in order of execution.

    Raises:
        UsageError: a stage has no node.
    """
    place = {path: position for position, path in enumerate(modules)}
    begins = [place[split] for split in splits]
    stages: List[int] = []
    stage = 0
    for node in nodes:
        position = place.get(module_of(node.name), -1)
        while stage < len(begins) and position >= begins[stage]:
            stage += 1
        stages.append(stage)
    for number, split in enumerate(splits, start=1):
        if number not in stages:
            raise UsageError(f"pipeline split {split!r} leaves a stage empty: its layers were "
                             "folded into others", "name a module that holds a convolution")
    return stages


def module_of(name: str) -> str:
    """Return the path of a node's module; empty for a node of the model itself.

    `/layer1/layer1.0/conv1/Conv` is of `layer1/0/conv1`: a module within a sequence or list has
    the sequence's name before its own.
    """
    path: List[str] = []
    before = ""
    for part in name.split("/")[1:-1]:
        own = part[len(before) + 1:] if before and part.startswith(before + ".") else part
        path += own.split(".")
        before = part
    return "/".join(path)


def outputs_of(node: Any) -> Set[str]:
    """Return the names by which a builder finds a node: those of all its outputs, empty ones too.

    Args:
        node: an ONNX node that a builder has read.

    Raises:
        UsageError: it leaves out several outputs, so that its names do not number its outputs.
    """
    names = list(node.output)
    if names.count("") > 1:
        raise UsageError(f"operator {node.op_type!r} leaves out several of its outputs, and PopART "
                         "cannot find it", "export the network again")
    return set(names)


def place(builder: Any, nodes: Sequence[Any], stages: Optional[Sequence[int]],
          proportions: Sequence[float]) -> None:
    """Put nodes on the IPUs of their stages, and limit the tile memory that they use.

    Args:
        builder: a `popart.Builder` of the graph.
        nodes: ONNX nodes of the graph.
        stages: of each node; None for one IPU.
        proportions: of tile memory for temporary values; none, one, or one for each stage.
    """
    for number, node in enumerate(nodes):
        if node.op_type == "Constant":  # no longer an operation once PopART has read it
            continue
        outputs = outputs_of(node)
        stage = stages[number] if stages else 0
        if stages:
            builder.virtualGraph(outputs, stage)
            # `pipelineStage` takes no set of names: a node with several outputs has no other way
            builder.addNodeAttribute(PIPELINE_STAGE, stage, outputs)
        if proportions and node.op_type in _WITH_PLANS:
            builder.setAvailableMemoryProportion(
                outputs, proportions[stage if len(proportions) > 1 else 0])
