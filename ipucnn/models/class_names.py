"""Names of a model's outputs, and the mapping from dataset labels to outputs."""

from __future__ import annotations

from typing import Any, List, Optional, Sequence

from ipucnn.core.names import key
from ipucnn.data import ImageDataset

IMAGENET_CLASSES = 1000


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
    """Return the output for each label of the dataset, or None if they cannot be matched.

    Labels match if the dataset has as many classes as the model, or if the name of each of
    its classes (a folder's name) is the name of one output.
    """
    if len(dataset.class_names) == len(names):
        return list(range(len(names)))
    outputs = {key(name).replace(" ", "-"): index for index, name in enumerate(names)}
    mapped = [outputs.get(key(name).replace(" ", "-")) for name in dataset.class_names]
    if any(index is None for index in mapped):
        return None
    return [index for index in mapped if index is not None]
