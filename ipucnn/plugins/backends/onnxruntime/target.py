"""Which ONNX is written for ONNX Runtime."""

from __future__ import annotations

from ipucnn.core.onnx.target import OnnxTarget

TARGET = OnnxTarget(name="ONNX Runtime", opsets=(7, 20))
"""Every operator of the operator sets since 7; 1.17, the oldest release accepted, reads up to 20.

Source: ONNX Runtime's compatibility table.
"""
