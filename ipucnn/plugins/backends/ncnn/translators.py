"""Translates all operators of an ONNX graph to layers of ncnn."""

from __future__ import annotations

from typing import Callable, Dict, List

from ipucnn.plugins.backends.ncnn import elementwise, pooling, shaping, weighted
from ipucnn.plugins.backends.ncnn.graph_translation import Translation
from ipucnn.plugins.backends.ncnn.graph_view import GraphView, Node, refusal
from ipucnn.plugins.backends.ncnn.param_file import Layer

TRANSLATORS: Dict[str, Callable[[Translation, Node], None]] = {
    **elementwise.TRANSLATORS, **pooling.TRANSLATORS, **shaping.TRANSLATORS,
    **weighted.TRANSLATORS}
"""The translators of operators, by operator."""


def translated(view: GraphView) -> List[Layer]:
    """Return the layers of a network.

    Raises:
        UnsupportedNetworkError: names the operators that ncnn cannot compute, or the first one
            whose attributes it lacks.
    """
    missing = sorted({node.kind for node in view.nodes} - set(TRANSLATORS))
    if missing:
        raise refusal("it needs operators that are not translated: " + ", ".join(missing))
    translation = Translation(view)
    for node in view.nodes:
        if node not in translation.done:
            if len([name for name in node.outputs if name]) > 1:
                node.refused("has several outputs")
            TRANSLATORS[node.kind](translation, node)
    return translation.named()
