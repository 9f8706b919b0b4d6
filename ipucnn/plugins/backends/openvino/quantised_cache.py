"""Stores quantised networks, by their weights, calibration images and the versions used."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Tuple

import numpy

from ipucnn.data.remote.download import sha256
from ipucnn.onnx.kept_folders import KeptFolder
from ipucnn.plugins.backends.openvino.library import openvino
from ipucnn.version import __version__

if TYPE_CHECKING:
    from ipucnn.core.execution.calibration import Calibration
    from ipucnn.onnx.engine_graph import Graph

    Array = numpy.ndarray[Any, Any]

log = logging.getLogger("ipucnn.graphs")

_MODEL, _LOGITS = "model.xml", "logits.npz"


@dataclass(frozen=True)
class QuantisedCache:
    """The place of a quantised network and of the logits that compare it with the full one."""

    kept: KeptFolder

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
        versions = __version__, openvino.__version__, metadata.version("nncf")
        digest.update(repr((device, versions)).encode())
        return cls(KeptFolder("quantised", digest.hexdigest()[:32], _MODEL))

    def read(self, core: Any) -> Tuple[Any, Optional[Tuple[Array, Array]]]:
        """Return the network and the two logits; None for missing or damaged files."""
        folder = self.kept.path
        try:
            if not self.kept.there():
                return None, None
            model = core.read_model(str(folder / _MODEL))
            # opened here: numpy leaves a damaged file open
            with open(folder / _LOGITS, "rb") as file, \
                    numpy.load(file, allow_pickle=False) as stored:
                full, quantised = stored["full"], stored["quantised"]
            if full.shape != quantised.shape or full.ndim != 2:
                raise ValueError("the stored logits differ in shape")
            return model, (full, quantised)
        except Exception as error:  # of OpenVINO, numpy, zipfile and zlib, without a common base
            log.info("quantised network '%s' is not used: %s", folder, error)
            return None, None

    def write(self, model: Any, full: Array, quantised: Array) -> None:
        """Store a network; errors of writing are ignored."""
        try:
            with self.kept.filled() as partial:
                openvino.save_model(model, str(partial / _MODEL), compress_to_fp16=False)
                numpy.savez(str(partial / _LOGITS), full=full, quantised=quantised)
        except (OSError, RuntimeError) as error:
            log.info("the quantised network is not stored in '%s': %s", self.kept.path, error)
