"""Images with which a network is quantised, and what quantising does to its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional

import torch  # noqa: TID253

from ipucnn.core.errors import DataError
from ipucnn.data import ImageDataset
from ipucnn.data.loader import HostLoader
from ipucnn.inference.scores import label_map

SAMPLES = 300
"""Images that a network is calibrated with; NNCF's own default."""

FEWEST = 10
"""Images from which ranges of activations can be had at all, and answers compared."""

_MORE = "name a folder with more images with '--calibration-dir'"


@dataclass(frozen=True)
class Calibration:
    """Images for quantising: the first are calibrated with, the others compared on.

    Attributes:
        images: `(n, 3, size, size)`, uint8.
        labels: the output that is right for each; None where it is not known.
        count: how many of them to calibrate with; when that is all, all are compared on too.
    """

    images: torch.Tensor
    labels: List[Optional[int]]
    count: int

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
        """Return how far the quantised network's answers are from the full one's.

        Args:
            full: logits of the `compared` images in full precision.
            quantised: those of the quantised network.

        Returns:
            `calibration_images`; `compared_images`; `held_out`, whether those are others;
            `agreement`, per cent of equal top-1 classes; and where labels are known `top1_full`,
            `top1_int8` in per cent and `top1_difference`.
        """
        best_full, best = full.argmax(1), quantised.argmax(1)
        told: Dict[str, Any] = {
            "calibration_images": self.count, "compared_images": len(full),
            "held_out": self.count < len(self.images),
            "agreement": _per_cent(best == best_full)}
        labels = self.labels[self._first_compared:]
        known = [row for row, label in enumerate(labels) if label is not None]
        if known:
            right = torch.tensor([labels[row] for row in known])
            top1_full, top1 = (_per_cent(found[known] == right) for found in (best_full, best))
            told.update(top1_full=top1_full, top1_int8=top1, top1_difference=top1 - top1_full)
        return told


def _per_cent(equal: torch.Tensor) -> float:
    return 100.0 * float(equal.double().mean())


def calibration_of(dataset: ImageDataset, input_size: int, class_names: List[str],
                   samples: Optional[int] = None, seed: int = 0,
                   workers: Optional[int] = None, skip_bad: bool = False) -> Calibration:
    """Return images of a dataset to calibrate with, and others to compare on.

    They are drawn by the seed: folders of classes come in the order of the classes. As many again
    are compared on, or a fifth of a small dataset; where that would be fewer than `FEWEST`, those
    that are calibrated with.

    Args:
        dataset: where images come from.
        input_size: height and width of the model's input in pixels.
        class_names: what the model's outputs mean.
        samples: images to calibrate with; `SAMPLES` when None, and at most what the dataset has.
        seed: the same gives the same images.
        workers: decoding threads; the cores this process may use when None.
        skip_bad: leave out images that cannot be read.

    Raises:
        DataError: an image cannot be read, or there are fewer than `FEWEST`.
    """
    samples = SAMPLES if samples is None else samples
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
    mapped = label_map(dataset, class_names) if dataset.class_names else None
    images: List[torch.Tensor] = []
    labels: List[Optional[int]] = []
    with HostLoader(dataset, input_size, FEWEST, order, workers, skip_bad) as loader:
        for batch in loader:
            images.append(batch.images)
            labels += [None if mapped is None or label is None else mapped[label]
                       for label in batch.labels]
            if len(labels) >= 2 * samples:
                break
    there = min(len(labels), 2 * samples)
    if there < FEWEST:
        raise DataError(f"{there} images are too few to calibrate with: it takes {FEWEST}", _MORE)
    compared = min(samples, max(there - samples, there // 5))
    if compared < FEWEST:
        compared = 0
    return Calibration(torch.cat(images)[:there], labels[:there],
                       min(samples, there - compared))
