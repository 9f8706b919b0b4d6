"""Reads a graph in OpenVINO's own format, in which an earlier run has stored it.

The engine maps the weights in such files into memory. Those of an ONNX file are parsed and copied,
which takes longer and needs the memory of another copy.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ipucnn.onnx.graph_facts import identity
from ipucnn.onnx.kept_folders import KeptFolder
from ipucnn.plugins.backends.openvino.library import openvino

log = logging.getLogger("ipucnn.graphs")

_MODEL = "model.xml"


def read_model(core: Any, path: str) -> Any:
    """Return the graph in an ONNX file, which holds all weights, and store it for later runs.

    The run that stores it uses the stored form as well: OpenVINO's cache of compiled models
    (`--model-cache-path`) has another entry for each form.
    """
    kept = KeptFolder.of("openvino", (identity(Path(path)), openvino.__version__), _MODEL)
    found = _read(core, kept)
    if found is not None:
        return found
    model = core.read_model(path)
    try:
        with kept.filled() as folder:
            openvino.save_model(model, str(folder / _MODEL), compress_to_fp16=False)
    except (OSError, RuntimeError) as error:  # a full disk, or a folder that is not the user's
        log.info("the graph is not stored in '%s': %s", kept.path, error)
        return model
    found = _read(core, kept)
    return model if found is None else found


def _read(core: Any, kept: KeptFolder) -> Any:
    """Return the stored graph; None for missing or damaged files."""
    if not kept.there():
        return None
    try:
        return core.read_model(str(kept.path / _MODEL))
    except Exception as error:  # with parts of a damaged file, its text may not even be UTF-8
        log.info("stored graph '%s' is not used: %s", kept.path, error)
        return None
