"""Reads a graph in OpenVINO's own format, in which an earlier run has stored it.

The engine maps the weights in such files into memory. Those of an ONNX file are parsed and copied,
which takes longer and needs the memory of another copy.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import openvino

from ipucnn.onnx.graph_facts import identity
from ipucnn.onnx.kept_folders import KeptFolder

log = logging.getLogger("ipucnn.graphs")

_MODEL = "model.xml"


def read_model(core: Any, path: str) -> Any:
    """Return the graph in an ONNX file, which holds all weights, and store it for later runs."""
    kept = KeptFolder.of("openvino", (identity(Path(path)), openvino.__version__), _MODEL)
    if kept.there():
        try:
            return core.read_model(str(kept.path / _MODEL))
        except RuntimeError as error:  # a damaged file
            log.info("stored graph '%s' is not used: %s", kept.path, error)
    model = core.read_model(path)
    try:
        with kept.filled() as folder:
            openvino.save_model(model, str(folder / _MODEL), compress_to_fp16=False)
    except (OSError, RuntimeError) as error:  # a full disk, or a folder that is not the user's
        log.info("the graph is not stored in '%s': %s", kept.path, error)
    return model
