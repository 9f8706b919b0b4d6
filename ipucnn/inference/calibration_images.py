"""Selects calibration images for quantisation and compares predictions before and after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional

import torch

from ipucnn.core.errors import DataError
from ipucnn.core.execution.accuracy import is_correct
from ipucnn.core.execution.calibration import Calibration
from ipucnn.data import ImageDataset
from ipucnn.data.host_loader import HostLoader
from ipucnn.inference.options import RunDataset
from ipucnn.models.card import ModelCard
from ipucnn.models.class_names import ClassMatch

SAMPLES = 300
"""Default number of calibration images, as in NNCF."""

FEWEST = 10
"""Fewest images for determining activation ranges and for comparing predictions."""

_MORE = "name a folder with more images with '--calibration-dir'"


@dataclass(frozen=True)
class CalibrationImages(Calibration):
    """Images of a dataset: the first ones calibrate a network, and the others compare it.

    Attributes:
        images: `(n, 3, size, size)`, uint8.
        labels: the correct output for each; None where it is not known.
        count: how many of them to calibrate with; if it is all, all are used for comparing, too.
        card: of the model; None compares its outputs as they are.
    """

    images: torch.Tensor
    labels: List[Optional[int]]
    count: int
    card: Optional[ModelCard] = None

    @property
    def calibrating(self) -> torch.Tensor:
        """Images to calibrate with."""
        return self.images[:self.count]

    @property
    def compared(self) -> torch.Tensor:
        """Images to compare the quantised network with the full one on."""
        return self.images[self._first_compared:]

    @property
    def _first_compared(self) -> int:
        return self.count if self.count < len(self.images) else 0

    def report(self, full: torch.Tensor, quantised: torch.Tensor) -> Dict[str, Any]:
        """Return how the quantised network's predictions differ from the full one's.

        Args:
            full: logits of the `compared` images in full precision.
            quantised: those of the quantised network.

        Returns:
            `calibration_images`; `compared_images`; `held_out`, whether the two sets are disjoint;
            `agreement`, per cent of equal top-1 classes; and where labels are known `top1_full`,
            `top1_int8` in per cent and `top1_difference`.
        """
        if self.card is not None and full.shape[1] == 1:  # it distinguishes two classes
            full, quantised = (torch.from_numpy(self.card.probabilities(logits))
                               for logits in (full, quantised))
        best_full, best = full.argmax(1), quantised.argmax(1)
        report: Dict[str, Any] = {
            "calibration_images": self.count, "compared_images": len(full),
            "held_out": self.count < len(self.images),
            "agreement": _per_cent(best == best_full)}
        labels = self.labels[self._first_compared:]
        known = [row for row, label in enumerate(labels) if label is not None]
        if known:
            right = torch.tensor([labels[row] for row in known])
            top1_full, top1 = (_per_cent(is_correct(logits[known], right))
                                for logits in (full, quantised))
            report.update(top1_full=top1_full, top1_int8=top1, top1_difference=top1 - top1_full)
        return report


def _per_cent(equal: torch.Tensor) -> float:
    return 100.0 * float(equal.double().mean())


def calibration_of(dataset: ImageDataset, card: ModelCard, match: Optional[ClassMatch],
                   options: RunDataset) -> CalibrationImages:
    """Return images of a dataset for calibration, and others for comparison.

    They are drawn at random, because datasets are often sorted by class. The comparison uses the
    same number of images, or a fifth of a small dataset; where that would be fewer than `FEWEST`,
    the calibration images.

    Args:
        dataset: where images come from.
        card: of the model.
        match: the model's class for each label; None where labels are unknown.
        options: number of calibration images (`SAMPLES` by default, at most the dataset's size),
            seed of the draw, and how images are read.

    Raises:
        DataError: an image cannot be read, or there are fewer than `FEWEST`.
    """
    samples = SAMPLES if options.calibration_samples is None else options.calibration_samples
    order = torch.randperm(
        len(dataset), generator=torch.Generator().manual_seed(options.seed)).tolist()
    images: List[torch.Tensor] = []
    labels: List[Optional[int]] = []
    with HostLoader(dataset, card.preprocessing, FEWEST, order, workers=options.dataloader_worker,
                    skip_bad=options.skip_bad_samples) as loader:
        for batch in loader:
            images.append(batch.images)
            labels += [match.outputs[label] if match and isinstance(label, int) else None
                       for label in batch.labels]
            if len(labels) >= 2 * samples:
                break
    there = min(len(labels), 2 * samples)
    if there < FEWEST:
        raise DataError(f"{there} images are too few to calibrate with: it takes {FEWEST}", _MORE)
    compared = min(samples, max(there - samples, there // 5))
    if compared < FEWEST:
        compared = 0
    count = min(samples, there - compared)
    return CalibrationImages(torch.cat(images)[:count + compared], labels[:count + compared], count,
                             card)
