"""Loads a graph that ONNX Runtime has optimised in an earlier run, with its weights beside it.

The engine maps such weights into memory, without parsing, copying or rearranging them.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Callable, Optional

from ipucnn.core.environment import processor
from ipucnn.onnx.graph_facts import identity
from ipucnn.onnx.kept_folders import KeptFolder
from ipucnn.onnx.runtime_library import onnxruntime

log = logging.getLogger("ipucnn.graphs")

_MODEL, _WEIGHTS = "model.onnx", "weights.bin"

_SETTINGS = 2
"""The version of the settings that affect the optimised graph."""


def session(path: str, options: Callable[[], onnxruntime.SessionOptions],
            provider: Any) -> onnxruntime.InferenceSession:
    """Return a session of the graph in a file, or of its stored optimised form.

    Args:
        path: of the file, which holds all weights.
        options: returns new options of the session.
        provider: of the CPU.
    """
    # the optimised graph depends on the file, the engine, the processor and our settings
    kept = KeptFolder.of("onnxruntime", (identity(Path(path)), onnxruntime.__version__, processor(),
                                         _instructions(), _SETTINGS), _MODEL)
    found = _read(kept, options(), provider)
    return _made(kept, path, options, provider) if found is None else found


def _instructions() -> str:
    """Return the instruction sets of the processor, for which weights are rearranged."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            return next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        return ""


def _read(kept: KeptFolder, options: onnxruntime.SessionOptions,
          provider: Any) -> Optional[onnxruntime.InferenceSession]:
    """Return a session of the stored graph, without optimising it again, or None."""
    if not kept.there():
        return None
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(str(kept.path / _MODEL), options, providers=[provider])
    except Exception as error:  # its exceptions have no common base
        log.info("optimised graph '%s' is not used: %s", kept.path, error)
        return None


def _made(kept: KeptFolder, path: str, options: Callable[[], onnxruntime.SessionOptions],
          provider: Any) -> onnxruntime.InferenceSession:
    """Return a session of the graph in a file, and store its optimised form if possible."""
    made = None
    try:
        with kept.filled() as folder:
            storing = options()
            storing.optimized_model_filepath = str(folder / _MODEL)
            for key, value in (("optimized_model_external_initializers_file_name", _WEIGHTS),
                               ("optimized_model_external_initializers_min_size_in_bytes", "1024"),
                               ("save_external_prepacked_constant_initializers", "1")):
                storing.add_session_config_entry(f"session.{key}", value)
            made = onnxruntime.InferenceSession(path, storing, providers=[provider])
    except Exception as error:  # a full disk, or a folder that is not the user's
        log.info("the optimised graph is not stored in '%s': %s", kept.path, error)
    # if storing was not the cause of the error, this fails again
    return made or onnxruntime.InferenceSession(path, options(), providers=[provider])
