"""Top-k accuracy: correctness of predictions, and counts over batches.

Labels are `(n,)` int64, one class per image, or `(n, classes)` with a value above 0 for each class
that an image has. Nothing here imports torch: `is_correct` uses tensors through their methods, so
that a backend can trace it for its device, and counts take anything that numpy reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Sequence

if TYPE_CHECKING:
    import numpy
    import torch

UNKNOWN = -1
"""Label of an image whose class is unknown."""


def is_correct(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return whether each image's largest logit is that of its class, bool `(n,)`.

    Args:
        logits: `(n, classes)`.
        labels: `(n,)` int64, or `(n, classes)`: then any class of the image is correct.
    """
    largest = logits.argmax(1)
    if labels.dim() == 1:
        return largest == labels
    return labels.gather(1, largest[:, None])[:, 0] > 0


def per_cent(correct: int, images: int) -> float:
    """Return an accuracy in per cent; 0 without images."""
    return 100 * correct / max(1, images)


def best_classes(values: Any, count: int) -> numpy.ndarray[Any, Any]:
    """Return the classes of the largest values, best first, int64 `(n, at most count)`.

    A value that is not a number counts as the largest.

    Args:
        values: `(n, classes)`, an array or a tensor of the host.
        count: how many of each row.
    """
    import numpy

    values = -numpy.asarray(values)
    values[numpy.isnan(values)] = -numpy.inf
    if count >= values.shape[1]:
        return numpy.argsort(values, axis=1, kind="stable")
    # finding the best ones first takes a tenth of the time of sorting a thousand classes
    best = numpy.sort(numpy.argpartition(values, count - 1, axis=1)[:, :count], axis=1)
    order = numpy.argsort(numpy.take_along_axis(values, best, 1), axis=1, kind="stable")
    return numpy.take_along_axis(best, order, 1)


class TopK:
    """Counts of images and of those whose class is the first, or among the first five.

    With fewer than five classes, the first five are all of them. Counts of several batches or
    processes add up to those of one.

    Attributes:
        images: images with a known class.
        top1, top5: those whose class has the largest logit, or one of the five largest.
    """

    def __init__(self, images: int = 0, top1: int = 0, top5: int = 0) -> None:
        self.images, self.top1, self.top5 = images, top1, top5

    def add(self, logits: Any, labels: Any) -> numpy.ndarray[Any, Any]:
        """Count a batch and return its best classes, int64 `(n, min(5, classes))`, best first.

        Args:
            logits: `(n, classes)`, an array or a tensor of the host.
            labels: `(n,)` int64, where images with `UNKNOWN` are not counted, or `(n, classes)`.
        """
        import numpy

        labels = numpy.asarray(labels)
        best = best_classes(logits, 5)
        if labels.ndim == 1:
            hits = best == labels[:, None]
            self.images += int((labels != UNKNOWN).sum())
        else:
            hits = numpy.take_along_axis(labels, best, 1) > 0
            self.images += len(labels)
        self.top1 += int(hits[:, 0].sum())
        self.top5 += int(hits.any(1).sum())
        return best

    def as_plain(self) -> List[int]:
        """Return the counts as plain numbers, for `merged`."""
        return [self.images, self.top1, self.top5]

    @classmethod
    def merged(cls, parts: Iterable[Sequence[int]]) -> TopK:
        """Return the sum of counts that `as_plain` returned, of several processes for example."""
        return cls(*(sum(column) for column in zip(*parts)))

    def accuracy(self) -> Optional[Dict[str, float]]:
        """Return `top1` and `top5` in per cent and the number of `images`; None without images."""
        if not self.images:
            return None
        return {"top1": per_cent(self.top1, self.images), "top5": per_cent(self.top5, self.images),
                "images": self.images}
