"""Labels of batches and datasets: as tensors, and how often each class occurs."""

from __future__ import annotations

import operator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Iterable, List, Optional, Sequence, Tuple, cast

import numpy

from ipucnn.core.errors import PluginError
from ipucnn.core.execution.accuracy import UNKNOWN
from ipucnn.data import ImageDataset, Label
from ipucnn.data.dataset_checks import who

if TYPE_CHECKING:
    import torch

IMBALANCE = 3.0
"""Ratio of the largest to the smallest class from which classes of unequal size are reported."""


def label_of(dataset: ImageDataset, index: int) -> Optional[Label]:
    """Return the label of an image, or all of its labels where it may have several.

    Raises:
        PluginError: a label is not one of the dataset's classes.
    """
    if dataset.multi_label:
        labels = dataset.labels(index)
        if not isinstance(labels, Iterable):
            raise PluginError(f"{who(dataset)} returned {labels!r} as the labels of "
                              f"{dataset.name(index)!r}, expected a tuple of numbers")
        return tuple(_class(dataset, index, label) for label in labels)
    return class_of(dataset, index)


def class_of(dataset: ImageDataset, index: int) -> Optional[int]:
    """Return the one label of an image in a built-in type, or None; raises as `label_of` does."""
    label = dataset.label(index)
    return None if label is None else _class(dataset, index, label)


def id_of(dataset: ImageDataset, index: int) -> Optional[int]:
    """Return the id of an image in a built-in type, or None without one."""
    found = dataset.image_id(index)
    try:
        return None if found is None else operator.index(found)
    except TypeError:
        raise PluginError(f"{who(dataset)} returned {found!r} as the id of "
                          f"{dataset.name(index)!r}, expected a whole number or None") from None


def _class(dataset: ImageDataset, index: int, label: Any) -> int:
    classes = len(dataset.class_names)
    with suppress(TypeError, RuntimeError):  # not a number; a tensor of several
        number = operator.index(label)
        if number >= 0 and (number < classes or not classes):
            return number
    raise PluginError(f"{who(dataset)} returned class {label!r} for {dataset.name(index)!r}, "
                      "expected " + (f"a number from 0 to {classes - 1}" if classes else "a number")
                      + ", or None if it is not known")


def label_tensor(labels: Sequence[Optional[Label]], classes: int) -> torch.Tensor:
    """Return the labels of a batch as a tensor; see `labels_of_batch`."""
    import torch

    return torch.from_numpy(labels_of_batch(labels, classes))


def labels_of_batch(labels: Sequence[Optional[Label]],
                    classes: int) -> numpy.ndarray[Any, Any]:
    """Return labels as a tensor for losses and accuracies.

    Args:
        labels: of the images of a batch.
        classes: outputs of the model.

    Returns:
        `(n,)` int64 with `UNKNOWN` for unknown classes; or, if images can have several labels, `(n,
        classes)` float32, with 1 for each class of an image.
    """
    if not any(isinstance(label, tuple) for label in labels):
        return numpy.array([UNKNOWN if label is None else label for label in labels],
                           dtype=numpy.int64)
    result = numpy.zeros((len(labels), classes), dtype=numpy.float32)
    for row, label in enumerate(labels):
        for number in label if isinstance(label, tuple) else ():
            result[row, number] = 1
    return result


def label_array(dataset: ImageDataset) -> numpy.ndarray[Any, Any]:
    """Return the label of every image, int64; `UNKNOWN` where it is not known.

    Raises:
        PluginError: see `label_of`.
    """
    return numpy.array([UNKNOWN if label is None else label for index in range(len(dataset))
                        for label in [class_of(dataset, index)]], dtype=numpy.int64)


def class_counts(dataset: ImageDataset, classes: int) -> List[int]:
    """Return the number of images of each class; one with several labels counts for each."""
    if dataset.multi_label:
        labels = numpy.array([number for index in range(len(dataset))
                              for number in cast(Tuple[int, ...], label_of(dataset, index))],
                             dtype=numpy.int64)
    else:
        labels = label_array(dataset)
    counts: List[int] = numpy.bincount(labels[labels >= 0], minlength=classes).tolist()
    return counts


def imbalance(names: Sequence[str], counts: Sequence[int]) -> Optional[str]:
    """Return the note about classes of very different size, or None.

    Args:
        names: of the classes.
        counts: images of each.
    """
    known = [(count, name) for name, count in zip(names, counts) if count]
    if not known:
        return None
    (least, rarest), (most, commonest) = min(known), max(known)
    if most <= IMBALANCE * least:
        return None
    return (f"classes differ in size: {commonest!r} has {most} images and {rarest!r} {least}; "
            "'--class-weights balanced' weights them, '--sampler balanced' draws from all alike")
