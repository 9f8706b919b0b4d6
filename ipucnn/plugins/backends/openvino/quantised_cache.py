"""Stores quantised networks, by their weights, calibration images and the versions used."""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Tuple

import numpy
import openvino

from ipucnn.core.files import private_folder
from ipucnn.core.staging import scratch
from ipucnn.data.remote.download import cache_dir, sha256

if TYPE_CHECKING:
    from ipucnn.core.execution.calibration import Calibration
    from ipucnn.onnx.engine_base import Graph

    Array = numpy.ndarray[Any, Any]

log = logging.getLogger("ipucnn.graphs")

KEPT = 16
"""How many quantised networks are kept: those used last."""


@dataclass(frozen=True)
class QuantisedCache:
    """The place of a quantised network and of the logits that compare it with the full one.

    Attributes:
        folder: which may not exist yet.
    """

    folder: Path

    @classmethod
    def of(cls, graph: Graph, calibration: Calibration, device: str) -> QuantisedCache:
        """Return the place for a graph and images; it does not depend on the batch of a run."""
        content = graph.stored()
        digest = hashlib.sha256()
        digest.update(sha256(Path(content)).encode() if isinstance(content, str)
                      else hashlib.sha256(content).hexdigest().encode())
        for images in (calibration.calibrating, calibration.compared):
            digest.update(repr(tuple(images.shape)).encode() + numpy.ascontiguousarray(
                images.numpy()).tobytes())
        digest.update(repr((device, openvino.__version__, metadata.version("nncf"))).encode())
        return cls(cache_dir() / "quantised" / digest.hexdigest()[:32])

    def read(self, core: Any) -> Tuple[Any, Optional[Tuple[Array, Array]]]:
        """Return the network and the two logits; None for what is missing or damaged."""
        try:
            if not (self.folder / "model.xml").is_file():
                return None, None
            model = core.read_model(str(self.folder / "model.xml"))
            with numpy.load(str(self.folder / "logits.npz"), allow_pickle=False) as stored:
                logits = stored["full"], stored["quantised"]
            (self.folder / "model.xml").touch()  # the networks used last are kept
            return model, logits
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            log.info("quantised network '%s' is not used: %s", self.folder, error)
            return None, None

    def write(self, model: Any, full: Array, quantised: Array) -> None:
        """Store a network; a folder that cannot be written, or a full disk, loses it."""
        parent = self.folder.parent
        try:
            private_folder(parent)
            with scratch(parent, self.folder.name) as partial:
                openvino.save_model(model, str(partial / "model.xml"), compress_to_fp16=False)
                numpy.savez(str(partial / "logits.npz"), full=full, quantised=quantised)
                _remove(self.folder)
                partial.rename(self.folder)
            for old in sorted(parent.glob("*/model.xml"), key=lambda path: -path.stat().st_mtime
                              )[KEPT:]:
                _remove(old.parent)
        except (OSError, RuntimeError) as error:
            log.info("the quantised network is not stored in '%s': %s", self.folder, error)


def _remove(folder: Path) -> None:
    """Remove a stored network; the model first, so that a killed process leaves none."""
    for name in ("model.xml", "model.bin", "logits.npz"):
        with suppress(FileNotFoundError):
            (folder / name).unlink()
    with suppress(OSError):
        folder.rmdir()
