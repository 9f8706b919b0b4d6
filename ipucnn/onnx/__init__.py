"""Exports, checks and reads ONNX networks; base class of backends that read ONNX.

`onnx` is imported inside functions: it is an extra, and PopART must be imported before it.
"""
