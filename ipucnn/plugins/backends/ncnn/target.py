"""The ONNX target of ncnn."""

from __future__ import annotations

from ipucnn.onnx.target import OnnxTarget

TARGET = OnnxTarget(name="ncnn", opsets=(7, 0))
"""The operator sets that are translated.

Operators are checked by the translation, after constant expressions are folded: a graph may compute
paddings and shapes with operators that are not translated.
"""
