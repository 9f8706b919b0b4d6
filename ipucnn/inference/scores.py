"""Computes top-k accuracy and predictions, and maps outputs to class names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Dict, List, Optional, Sequence

from ipucnn.core.execution.accuracy import UNKNOWN, TopK
from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.data import ImageDataset
from ipucnn.inference import predictions
from ipucnn.models.class_names import label_map

if TYPE_CHECKING:
    import torch

    from ipucnn.data.loader import Batch


class Scores:
    """Scores each image once, even if it is classified repeatedly.

    Args:
        dataset: the images to classify.
        spec: the record of the dataset.
        names: class names of the model's outputs.
        top_k: classes per image in the predictions.
        writer: writes the predictions; None writes none.
        instances: the processes that share the images, in round-robin order.

    Attributes:
        note: why there is no accuracy; empty when there is.
    """

    def __init__(self, dataset: ImageDataset, spec: DatasetSpec, names: Sequence[str], top_k: int,
                 writer: Optional[predictions.PredictionWriter] = None,
                 instances: Instances = ALONE) -> None:
        classes = len(names)
        self._dataset = dataset
        self._labelled = spec.labelled
        self._top_k = min(top_k, classes)
        self._writer = writer
        self._class_names = list(names)
        self._label_map = label_map(dataset, self._class_names) if spec.labelled else None
        self._first_pass = True
        self._next, self._stride = instances.index, instances.count
        self._count = TopK()
        self.note = ""
        if spec.labelled and self._label_map is None:
            self.note = (f"no accuracy: the model has {classes} classes, and the dataset "
                         f"{len(dataset.class_names)} that are not among them")

    def add(self, batch: Batch, logits: torch.Tensor) -> None:
        """Score a batch; its logits are `(n, classes)`."""
        import torch

        # a run longer than its data repeats it in order; in the second pass an index is lower
        # than the next one of the first pass, which lacks only images that cannot be read
        fresh: List[int] = []
        for row, index in enumerate(batch.indices):
            self._first_pass = self._first_pass and index >= self._next
            self._next = index + self._stride
            if self._first_pass:
                fresh.append(row)
        if not fresh:
            return
        names = [self._dataset.name(batch.indices[row]) for row in fresh]
        labels = [batch.labels[row] for row in fresh]
        logits = logits[fresh].float()
        if self._writer is not None:
            ids = [self._dataset.image_id(batch.indices[row]) for row in fresh]
            self._writer.write(predictions.rows(
                names, labels if self._labelled else None, logits.softmax(dim=1),
                self._class_names, self._top_k, ids if self._dataset.has_image_ids else None),
                [batch.indices[row] for row in fresh])
        if self._label_map is not None:
            self._count.add(logits, torch.tensor(
                [UNKNOWN if label is None else self._label_map[label] for label in labels]))

    def as_plain(self) -> List[int]:
        """Return the counts of this process, for `together`."""
        return self._count.as_plain()

    def together(self, parts: Sequence[Sequence[int]]) -> None:
        """Set the counts to the sum over all instances."""
        self._count = TopK.merged(parts)

    def accuracy(self) -> Optional[Dict[str, float]]:
        """Return top-1 and top-5 in per cent and the images counted, or None without labels."""
        return self._count.accuracy()
