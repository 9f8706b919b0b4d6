"""The ONNX target of ONNX Runtime."""

from __future__ import annotations

from ipucnn.onnx.target import OnnxTarget

TARGET = OnnxTarget(name="ONNX Runtime", opsets=(7, 0))
"""Every operator of the operator sets since 7, and those of its own domains.

Source: ONNX Runtime's compatibility table.
"""
