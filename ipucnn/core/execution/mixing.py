"""The interface of mixup and cutmix: how backends receive mixed images.

Sources: "mixup" (Zhang et al., 2018), "CutMix" (Yun et al., 2019). `ipucnn.data.mixup` draws the
values of a batch and mixes its images. This module does not import torch: tensors are used through
their methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, List, Optional, Tuple

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class MixOptions:
    """Options for mixing the images of a training.

    Attributes:
        mixup_alpha: parameter of mixup's Beta(alpha, alpha) distribution; 0 disables mixup.
        cutmix_low, cutmix_high: range of the share of an image that cutmix keeps; both 0 or both
            1 disable cutmix.
        cutmix_disable_prob: probability that cutmix leaves a micro-batch unchanged.
    """

    mixup_alpha: float = 0.0
    cutmix_low: float = 0.0
    cutmix_high: float = 0.0
    cutmix_disable_prob: float = 0.0

    @property
    def cuts(self) -> bool:
        """Whether cutmix is on."""
        return (self.cutmix_low, self.cutmix_high) not in ((0.0, 0.0), (1.0, 1.0))

    @property
    def enabled(self) -> bool:
        """Whether mixup or cutmix is on."""
        return self.mixup_alpha > 0 or self.cuts


@dataclass(frozen=True)
class Mixing:
    """Mixing parameters for several micro-batches of B images.

    Attributes:
        coefficients: share of each image's own pixels in mixup, `(n,)`, float32, 0.5 to 1; the
            remainder comes from the previous image of the micro-batch. None without mixup.
        boxes: part of the images that cutmix takes from the second previous image, one for each
            micro-batch: top, left, bottom, right in pixels, `(n / B, 4)`. None without cutmix.
        kept: share of an image outside its box, `(n / B,)`, float32.
    """

    coefficients: Optional[torch.Tensor] = None
    boxes: Optional[torch.Tensor] = None
    kept: Optional[torch.Tensor] = None

    def part(self, first: int, count: int, micro_batch: int) -> Mixing:
        """Return the mixing of `count` micro-batches, starting at number `first`."""
        last = first + count
        return Mixing(
            None if self.coefficients is None
            else self.coefficients[first * micro_batch:last * micro_batch],
            None if self.boxes is None else self.boxes[first:last],
            None if self.kept is None else self.kept[first:last])

    def to(self, device: torch.device) -> Mixing:
        """Return the parameters on a device."""
        return Mixing(*(None if value is None else value.to(device, non_blocking=True)
                        for value in (self.coefficients, self.boxes, self.kept)))


def mixed_labels(labels: torch.Tensor, mixing: Optional[Mixing], micro_batch: int
                 ) -> List[Tuple[torch.Tensor, Optional[torch.Tensor]]]:
    """Return the labels of the images that are mixed into each image, and their shares.

    Args:
        labels: `(n,)` or `(n, classes)`, one row per image.
        mixing: the mixing of the images within their micro-batches; None without mixing.
        micro_batch: images per micro-batch; all n when 0.

    Returns:
        Pairs of labels, shaped as `labels`, and shares `(n,)`, which add up to 1 for each image. A
        share of None is 1.
    """
    if mixing is None:
        return [(labels, None)]
    micro_batch = micro_batch or len(labels)

    def rolled(values: torch.Tensor, by: int) -> torch.Tensor:
        rows = values.view(-1, micro_batch, *values.shape[1:])
        return rows.roll(by, 1).reshape(values.shape)

    c, kept = mixing.coefficients, mixing.kept
    share = None if kept is None else \
        kept.to(labels.device).view(-1, 1).expand(-1, micro_batch).reshape(-1)
    if c is None:
        assert share is not None
        return [(labels, share), (rolled(labels, 2), 1 - share)]
    c = c.to(labels.device)
    if share is None:
        return [(labels, c), (rolled(labels, 1), 1 - c)]
    c2 = rolled(c, 2)
    return [(labels, c * share), (rolled(labels, 1), (1 - c) * share),
            (rolled(labels, 2), c2 * (1 - share)), (rolled(labels, 3), (1 - c2) * (1 - share))]
