"""The ONNX target of OpenVINO."""

from __future__ import annotations

from ipucnn.onnx.target import OnnxTarget

TARGET = OnnxTarget(name="OpenVINO", opsets=(7, 0))
"""Operator sets of OpenVINO's ONNX front end; its own errors name missing operators."""
