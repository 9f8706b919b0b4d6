"""The ONNX target of OpenVINO."""

from __future__ import annotations

from ipucnn.onnx.target import OnnxTarget

TARGET = OnnxTarget(name="OpenVINO", opsets=(7, 0))
"""Operator sets that its ONNX front end reads; OpenVINO's errors name missing operators."""
