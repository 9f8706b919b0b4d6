"""The translators of operators, by operator."""

from __future__ import annotations

from typing import Callable, Dict

from ipucnn.plugins.backends.ncnn import elementwise, pooling, shaping, weighted
from ipucnn.plugins.backends.ncnn.graph_translation import Translation
from ipucnn.plugins.backends.ncnn.graph_view import Node

TRANSLATORS: Dict[str, Callable[[Translation, Node], None]] = {
    **elementwise.TRANSLATORS, **pooling.TRANSLATORS, **shaping.TRANSLATORS,
    **weighted.TRANSLATORS}
