"""Checks the classes of training images, and balances their frequency."""

from __future__ import annotations

from typing import List, Optional, Sequence, Tuple

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.execution.losses import Loss
from ipucnn.core.names import listed
from ipucnn.core.registry.records import BackendSpec, DatasetSpec
from ipucnn.data import ImageDataset
from ipucnn.data.balanced import BalancedImages
from ipucnn.data.labels import class_counts, imbalance
from ipucnn.data.views import Part
from ipucnn.models.class_names import ClassMatch
from ipucnn.training.options.train_options import TrainOptions


def check_classes(data: DatasetSpec, dataset: ImageDataset, backend: BackendSpec) -> None:
    """Check that the classes are suitable for a training.

    Raises:
        DataError: there is one class only.
        UsageError: images have several labels, and the backend takes one.
    """
    if dataset.multi_label and not backend.has("multi-label"):
        raise UsageError(f"backend {backend.name!r} trains with one label per image, and images of "
                         f"dataset {data.name!r} have several here",
                         "choose another with '--backend'")
    if len(dataset.class_names) == 1:
        raise DataError(
            f"{dataset.class_names[0]!r} is the only class of dataset {data.name!r} here; a "
            "training needs at least two", "add images of another class, or of none: each class in "
            "a folder of its own")


def check_outputs(dataset: ImageDataset, match: Optional[ClassMatch]) -> None:
    """Check that the model has an output for each class, and that each image has a class.

    Labels that are stored with the images are checked when they are read.

    Args:
        dataset: the training images.
        match: the model's class of each label; None where the dataset has no labels.

    Raises:
        DataError: names the classes, or the first image.
    """
    if match is None:
        return
    unknown = [name for name, output in zip(dataset.class_names, match.outputs) if output is None]
    if unknown:
        raise DataError(f"the model has no output for {listed(unknown)}, of which there are "
                        "training images",
                        "leave these images out, or leave '--num-classes' out: a new training then "
                        "has an output for each class of its images")
    if dataset.labels_in_memory and not dataset.multi_label:
        for index in range(len(dataset)):
            if dataset.label(index) is None:
                raise without_label(dataset, index)


def without_label(dataset: ImageDataset, index: int) -> DataError:
    """Return the error for a training image whose class is not known."""
    return DataError(f"training image {dataset.name(index)!r} has no label",
                     "leave such images out of the dataset")


def balanced(options: TrainOptions, dataset: ImageDataset, match: Optional[ClassMatch],
             loss: Loss, classes: int) -> Tuple[ImageDataset, List[int], List[str]]:
    """Return the images to train on, the counts that the loss was given, and notes.

    Balanced class weights are set in the loss; other losses are given no counts.

    Args:
        options: of the training.
        dataset: its images.
        match: the model's class of each label; None where the dataset has no labels.
        loss: its loss.
        classes: outputs of the model.

    Raises:
        UsageError: the images cannot be balanced, or are balanced twice.
        DataError: a label cannot be read.
    """
    sampled = options.dataset.sampler == "balanced"
    if not sampled and not loss.needs_counts and not dataset.labels_in_memory:
        return dataset, [], []
    if match is None:
        if sampled or loss.needs_counts:
            raise UsageError(f"dataset {options.dataset.data!r} has no classes to balance",
                             "leave 'balanced' out")
        return dataset, [], []
    counts = class_counts(dataset, len(match.outputs))
    notes = _untrained(dataset.class_names, counts)
    if sampled and loss.needs_counts:
        raise UsageError("'--sampler balanced' and '--class-weights balanced' balance the classes "
                         "twice", "leave one of them out")
    if loss.needs_counts:
        by_output = [0] * classes
        for count, output in zip(counts, match.outputs):
            if output is not None:
                by_output[output] += count
        loss.count_classes(by_output)
        return dataset, by_output, notes
    if not sampled:
        return dataset, [], [*notes, *filter(None, [imbalance(dataset.class_names, counts)])]
    if dataset.multi_label:
        raise UsageError("'--sampler balanced' draws images by their class, and these have "
                         "several", "use '--class-weights balanced'")
    return BalancedImages(dataset), [], notes


def _untrained(names: Sequence[str], counts: Sequence[int]) -> List[str]:
    """Return the note about classes without training images, which a list of images may have."""
    without = [name for name, count in zip(names, counts) if not count]
    if not without:
        return []
    return [f"there are no training images of {listed(without)}: the model gets "
            f"{'an output' if len(without) == 1 else 'outputs'} for "
            f"{'it' if len(without) == 1 else 'them'} that it does not learn to use"]


def unread_classes(dataset: ImageDataset, bad: Sequence[int]) -> List[str]:
    """Return the note about classes of which no training image could be read, if there are any.

    Args:
        dataset: the training images.
        bad: indices of those that could not be read.
    """
    if not bad or not dataset.labels_in_memory:
        return []
    classes = len(dataset.class_names)
    total = class_counts(dataset, classes)
    unread = class_counts(Part(dataset, sorted(set(bad))), classes)
    names = [name for name, count, lost in zip(dataset.class_names, total, unread)
             if count and count == lost]
    return [f"no training image of {listed(names)} could be read; the model has not learnt "
            f"{'it' if len(names) == 1 else 'them'}"] if names else []
