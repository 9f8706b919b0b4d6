"""The loss that is minimised: cross-entropy with label smoothing, of mixed images too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Tuple

import torch  # noqa: TID253

from ipucnn.training.mixing import Mixing


@dataclass(frozen=True)
class Loss:
    """Mean loss of micro-batches, in float32.

    ``(1 - s) * mean(-log p[label]) + s * mean(-log p)``, the second mean over samples and classes:
    label smoothing as in Szegedy et al., "Rethinking the Inception Architecture" (2016), section 7.

    Attributes:
        label_smoothing: s, 0 to 1.
    """

    label_smoothing: float = 0.0

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor,
                 mixing: Optional[Mixing] = None, micro_batch: int = 0) -> torch.Tensor:
        """Return the mean loss.

        Args:
            logits: `(n, classes)`, any floating type.
            labels: `(n,)`, int64.
            mixing: how the images were mixed within their micro-batches.
            micro_batch: samples of a micro-batch; all n when 0.
        """
        log_p = torch.log_softmax(logits.float(), dim=1)
        terms = []
        for target, share in _targets(labels, mixing, micro_batch or len(labels)):
            picked = torch.nn.functional.nll_loss(log_p, target, reduction="none")
            terms.append(picked if share is None else share * picked)
        s = self.label_smoothing
        loss = sum(terms[1:], terms[0]).mean()
        return loss if not s else (1 - s) * loss - s * log_p.mean()


def _targets(labels: torch.Tensor, mixing: Optional[Mixing], micro_batch: int
             ) -> List[Tuple[torch.Tensor, Optional[torch.Tensor]]]:
    """Return labels and the share that each has in its image."""
    if mixing is None:
        return [(labels, None)]
    rows = labels.view(-1, micro_batch)

    def rolled(values: torch.Tensor, by: int) -> torch.Tensor:
        return values.view(-1, micro_batch).roll(by, 1).reshape(-1)

    c, kept = mixing.coefficients, mixing.kept
    share = None if kept is None else \
        kept.to(labels.device).view(-1, 1).expand(-1, micro_batch).reshape(-1)
    if c is None:
        assert share is not None
        return [(labels, share), (rolled(rows, 2), 1 - share)]
    c = c.to(labels.device)
    if share is None:
        return [(labels, c), (rolled(rows, 1), 1 - c)]
    c2 = rolled(c, 2)
    return [(labels, c * share), (rolled(rows, 1), (1 - c) * share),
            (rolled(rows, 2), c2 * (1 - share)), (rolled(rows, 3), (1 - c2) * (1 - share))]
