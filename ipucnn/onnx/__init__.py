"""Networks as ONNX: exporting, checking, reading, and what backends that read ONNX share.

`onnx` is imported inside functions: it is an extra, and PopART must be imported before it.
"""
