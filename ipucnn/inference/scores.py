"""What logits mean: named classes, predictions and accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

from ipucnn.core.execution.instances import ALONE, Instances
from ipucnn.core.names import key
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.data import ImageDataset
from ipucnn.inference import predictions

if TYPE_CHECKING:
    import torch

    from ipucnn.data.loader import Batch

IMAGENET_CLASSES = 1000


class Scores:
    """Scores each image once, however often it is classified.

    Args:
        dataset: what is classified.
        spec: its record.
        classes: outputs of the model.
        top_k: classes per image in the predictions.
        writer: where predictions go, if anywhere.
        names: of the outputs, where the model knows them.
        instances: who take turns in the order of the images.
    """

    def __init__(self, dataset: ImageDataset, spec: DatasetSpec, classes: int, top_k: int,
                 writer: Optional[predictions.PredictionWriter] = None,
                 names: Sequence[str] = (), instances: Instances = ALONE) -> None:
        self._dataset = dataset
        self._labelled = spec.labelled
        self._top_k = min(top_k, classes)
        self._writer = writer
        self._class_names = list(names) or class_names(classes, dataset)
        self._label_map = label_map(dataset, self._class_names) if spec.labelled else None
        self._first_pass = True
        self._next, self._stride = instances.index, instances.count
        self._counted = self._top1 = self._top5 = 0
        self.note = ""
        if spec.labelled and self._label_map is None:
            self.note = (f"no accuracy: the model has {classes} classes, and the dataset "
                         f"{len(dataset.class_names)} that are not among them")

    def add(self, batch: Batch, logits: torch.Tensor) -> None:
        """Score a batch; its logits are `(n, classes)`."""
        # a run longer than its data goes round it in order; in the second round an index is lower
        # than what is next in the first, from which only images that cannot be read are missing
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
                names, labels, logits.softmax(dim=1), self._class_names, self._top_k,
                self._labelled, ids if self._dataset.has_image_ids else None),
                [batch.indices[row] for row in fresh])
        if self._label_map is not None:
            self._count(labels, logits, self._label_map)

    def _count(self, labels: Sequence[Optional[int]], logits: torch.Tensor,
               mapped: Sequence[int]) -> None:
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices.tolist()
        for label, classes in zip(labels, best):
            if label is not None:
                self._counted += 1
                self._top1 += classes[0] == mapped[label]
                self._top5 += mapped[label] in classes

    def as_plain(self) -> List[int]:
        """Return what was counted, for `together`."""
        return [self._counted, self._top1, self._top5]

    def together(self, parts: Sequence[Sequence[int]]) -> None:
        """Count what all instances scored."""
        self._counted, self._top1, self._top5 = (sum(column) for column in zip(*parts))

    def accuracy(self) -> Optional[Dict[str, float]]:
        """Return top-1 and top-5 in per cent and the images counted, or None without labels."""
        if not self._counted:
            return None
        return {"top1": 100.0 * self._top1 / self._counted,
                "top5": 100.0 * self._top5 / self._counted, "images": self._counted}


def class_names(classes: int, dataset: Any) -> List[str]:
    """Return a name for each output: the dataset's, ImageNet's for 1000, or numbers."""
    if len(dataset.class_names) == classes:
        return list(dataset.class_names)
    return names_of_classes(classes)


def names_of_classes(classes: int) -> List[str]:
    """Return ImageNet's names for 1000 outputs, else numbers."""
    if classes == IMAGENET_CLASSES:
        # the names travel with torchvision's weights; nothing is downloaded
        from torchvision.models import ResNet18_Weights

        return list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    return [f"class {index}" for index in range(classes)]


def label_map(dataset: ImageDataset, names: Sequence[str]) -> Optional[List[int]]:
    """Return the output for each label of the dataset, or None when they cannot be compared.

    Labels compare when the dataset has as many classes as the model, or when the name of each of
    its classes (a folder's name) is the name of one output.
    """
    if len(dataset.class_names) == len(names):
        return list(range(len(names)))
    outputs = {key(name).replace(" ", "-"): index for index, name in enumerate(names)}
    mapped = [outputs.get(key(name).replace(" ", "-")) for name in dataset.class_names]
    if any(index is None for index in mapped):
        return None
    return [index for index in mapped if index is not None]
