"""Draws training images so that all classes are equally frequent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Tuple

import numpy

from ipucnn.data import Box, ImageDataset
from ipucnn.data.labels import label_array

if TYPE_CHECKING:
    import torch

_STREAM = 3  # keeps its random numbers apart from those of other orders


class BalancedImages(ImageDataset):
    """A dataset in which all classes are equally frequent in an epoch.

    An epoch has as many samples as the dataset has images, divided evenly among the classes (up to
    one sample). The images of a class are used in turn, over several epochs if necessary: no image
    is repeated before all images of its class were used, each time in a different order. Index ``i
    + r * len(dataset)`` is the repetition r of image i in an epoch, so that repetitions are
    augmented differently.

    Args:
        dataset: the images, each of one known class.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        self._dataset = dataset
        self._length = len(dataset)
        labels = label_array(dataset)
        self._members = [numpy.flatnonzero(labels == label) for label in numpy.unique(labels)]
        self.class_names, self.notes = dataset.class_names, dataset.notes
        self.split, self.ready, self.flippable = dataset.split, dataset.ready, dataset.flippable
        self.has_boxes, self.has_image_ids = dataset.has_boxes, dataset.has_image_ids
        self.recipe, self.native_size = dataset.recipe, dataset.native_size
        self.in_memory, self.held_out = dataset.in_memory, dataset.held_out
        self.plugin = dataset.plugin

    def __len__(self) -> int:
        return self._length

    def order(self, seed: int, epoch: int) -> numpy.ndarray[Any, Any]:
        """Return the samples of an epoch; it depends on the arguments only."""
        classes = len(self._members)
        each, more = divmod(self._length, classes)
        parts = []
        for number, members in enumerate(self._members):
            # the classes with one sample more alternate
            begin, end = (each * e + max(0, -(-(more * e - number) // classes))
                          for e in (epoch, epoch + 1))
            first = begin // len(members)
            rounds = [self._shuffled(seed, number, r) + (r - first) * self._length
                      for r in range(first, -(-end // len(members)))]
            if rounds:
                skipped = first * len(members)
                parts.append(numpy.concatenate(rounds)[begin - skipped:end - skipped])
        return numpy.random.default_rng((seed, epoch, _STREAM)).permutation(
            numpy.concatenate(parts))

    def _shuffled(self, seed: int, number: int, turn: int) -> numpy.ndarray[Any, Any]:
        """Return the images of a class in the order of their turn."""
        random = numpy.random.default_rng((seed, _STREAM, number, turn))
        return random.permutation(self._members[number])

    def fingerprint(self) -> str:
        """Return the digest of the dataset."""
        return self._dataset.fingerprint()

    def version(self) -> str:
        """Return the digest of the dataset's stored images."""
        return self._dataset.version()

    def original(self, index: int) -> int:
        """Return the image that a sample is a repetition of."""
        return index % self._length

    def image(self, index: int) -> torch.Tensor:
        """Return the image of a sample; see `ImageDataset.image`."""
        return self._dataset.image(index % self._length)

    def encoded(self, index: int) -> Optional[bytes]:
        """Return the encoded file of a sample; see `ImageDataset.encoded`."""
        return self._dataset.encoded(index % self._length)

    def name(self, index: int) -> str:
        """Return the name of a sample's image."""
        return self._dataset.name(index % self._length)

    def label(self, index: int) -> Optional[int]:
        """Return the label of a sample."""
        return self._dataset.label(index % self._length)

    def labels(self, index: int) -> Tuple[int, ...]:
        """Return the labels of a sample."""
        return self._dataset.labels(index % self._length)

    def box(self, index: int) -> Optional[Box]:
        """Return the box of a sample."""
        return self._dataset.box(index % self._length)

    def image_id(self, index: int) -> Optional[int]:
        """Return the id of a sample's image."""
        return self._dataset.image_id(index % self._length)
