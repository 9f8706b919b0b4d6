"""Names folders of the cache of compiled programs, so that PopART takes the right one.

PopART recognises a program by the text of its operators and by some of the session's options
(`Ir`'s hash, `hash<SessionOptions>`). The hash does not include the values of constants, digits of
numbers beyond the sixth, the number of buffers, and whether cycles are counted, so that PopART
would use the wrong one of programs that differ only in these.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

from ipucnn.core.files import make_folder

UNSEEN_OPTIONS = ("defaultBufferingDepth", "instrumentWithHardwareCycleCounter",
                  "constantWeights", "useHostCopyOps", "enableExplicitMainLoops",
                  "enableEngineCaching")
"""Options set by this backend that PopART leaves out of its hash."""


def set_cache_folder(options: Any, model: bytes, state: bytes = b"") -> None:
    """Set the cache folder of a session to a subfolder for programs with the same properties.

    Args:
        options: a `popart.SessionOptions`; unchanged without a cache.
        model: the ONNX model; values of its weights do not matter.
        state: other properties of the program.

    Raises:
        UsageError: the folder cannot be created.
    """
    if not options.enableEngineCaching:
        return
    digest = sha256(_without_weights(model))
    digest.update(repr([(name, getattr(options, name)) for name in UNSEEN_OPTIONS]).encode())
    digest.update(state)
    options.cachePath = make_folder(str(Path(options.cachePath, digest.hexdigest()[:32])),
                                    "--model-cache-path")


def _without_weights(model: bytes) -> bytes:
    """Return a model without the values of its initialisers; constants keep theirs."""
    import onnx

    proto = onnx.load_from_string(model)
    del proto.metadata_props[:]  # a builder numbers its calls in it
    for tensor in proto.graph.initializer:
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data"):
            tensor.ClearField(field)
    return bytes(proto.SerializeToString(deterministic=True))
