"""The dataset interface.

A dataset plugin returns decoded images by index; the loader (`ipucnn.data.loader`) transforms,
batches and prefetches them.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterator, Optional, Sequence, Tuple, Union, overload

from ipucnn.core.errors import DataError
from ipucnn.core.registry.records import RANDOM_RESIZED_CROP

if TYPE_CHECKING:
    import numpy
    import torch

    from ipucnn.data.views import Sample

Box = Tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, relative to its width and height (0 to 1)."""


Label = Union[int, Tuple[int, ...]]
"""The class of an image, or all of its classes if it can have several."""


@dataclass(frozen=True)
class DatasetRequest:
    """The arguments with which a dataset is opened.

    Attributes:
        data_dir: the dataset's folder; None if the user gave none.
        input_size: height and width of the model's input in pixels.
        num_classes: number of outputs of the model; None for the number of classes of the dataset.
        length: number of samples of a generated dataset; None for the default of the dataset.
        seed: seed of generated images, and of `hold_out`.
        split: `train`, `validation`, or None for the split used to evaluate the whole dataset. A
            dataset that has splits, but not this one, raises `NoSplitError`.
        class_names: the model's classes in the order of labels, if they are known; labels are
            indices into them, even if a folder does not contain all. If empty, the dataset
            determines the labels.
        hold_out: whether a dataset without validation images divides its images: the split
            `validation` is a part of them, which depends on `seed` and their names only, and
            `train` is the remainder. Otherwise `train` is all of them.
    """

    data_dir: Optional[str] = None
    input_size: int = 224
    num_classes: Optional[int] = None
    length: Optional[int] = None
    seed: int = 0
    split: Optional[str] = None
    class_names: Tuple[str, ...] = ()
    hold_out: bool = False


class ImageDataset(ABC):
    """Images by index: `dataset[0]` is an image and its label, `dataset[-10:]` a dataset.

    Attributes:
        class_names: class names in the order of labels; empty if there are no labels.
        ready: images already have the model's input size and are not resized or cropped.
        flippable: an image keeps its class when left and right are exchanged.
        has_boxes: some images have a bounding box, which `box` returns.
        has_image_ids: some images have an id, which `image_id` returns.
        labels_in_memory: `label` and `labels` read no file.
        in_memory: `image` reads no file and computes nothing, so that a cache has no effect.
        multi_label: an image may have several classes or none, which `labels` returns; `label`
            returns None.
        split: the split of its images, `train` or `validation`; empty when it has no splits.
        held_out: its images are those that a training on the folder holds out for validation, or,
            with `split` `train`, the others.
        recipe: how training images are cropped: `DatasetSpec.recipe` of the record.
        native_size: height and width of all images in pixels; 0 if they differ.
        plugin: the plugin that made it, in words, for errors; set when a dataset is opened by name.
        made_from: name of the dataset from which the images were converted unchanged; may be
            empty.
        notes: notes for the user.
    """

    class_names: Tuple[str, ...] = ()
    ready: bool = False
    flippable: bool = True
    has_boxes: bool = False
    has_image_ids: bool = False
    labels_in_memory: bool = False
    in_memory: bool = False
    multi_label: bool = False
    split: str = ""
    held_out: bool = False
    recipe: str = RANDOM_RESIZED_CROP
    native_size: int = 0
    plugin: str = ""
    made_from: str = ""
    notes: Tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> ImageDataset: ...

    def __getitem__(self, index: Union[int, slice]) -> Union[Sample, ImageDataset]:
        """Return `(image, label)` of an image, or the dataset of a slice.

        Args:
            index: from 0; a negative one counts from the end.

        Raises:
            IndexError: there is no such image.
            DataError: the image cannot be read; the message names the file.
        """
        from ipucnn.data.views import Part, sample

        if isinstance(index, slice):
            return Part(self, range(len(self))[index])
        return sample(self, range(len(self))[operator.index(index)])

    def __iter__(self) -> Iterator[Sample]:
        """Yield `(image, label)` of every image, in order."""
        return (self[index] for index in range(len(self)))

    @abstractmethod
    def image(self, index: int) -> torch.Tensor:
        """Return image `index`: RGB, uint8, `(3, height, width)`.

        Raises:
            DataError: the image cannot be read; the message names the file.
        """

    def encoded(self, index: int) -> Optional[bytes]:  # noqa: ARG002 - for those that have files
        """Return the encoded file of image `index`, or None where it is not stored as one.

        If it is returned, `image` must equal the result of `ipucnn.plugin.decode` for it.

        Raises:
            DataError: it cannot be read; the message names it.
        """
        return None

    def order(self, seed: int, epoch: int) -> numpy.ndarray[Any, Any]:
        """Return the permutation of the indices that an epoch of training uses.

        It must depend on the arguments only. The base class shuffles all images; datasets in which
        neighbouring images are faster to read together override it.

        Args:
            seed: of the training.
            epoch: from 0.
        """
        import numpy

        return numpy.random.default_rng((seed, epoch)).permutation(len(self))

    def fingerprint(self) -> str:
        """Return a digest of the listing, which does not depend on the location of the folder.

        The base class covers the number of images and the class names; datasets of files also
        cover file names and labels.
        """
        import hashlib

        return hashlib.sha256(repr((len(self), self.class_names)).encode()).hexdigest()

    def version(self) -> str:
        """Return a digest that changes when stored images change, or an empty string.

        Pixels that are cached on disk are valid as long as it is the same. An empty string means
        that the dataset cannot detect changes.
        """
        return ""

    def original(self, index: int) -> int:
        """Return the image of sample `index` of an order; a different index if images repeat."""
        return index

    @abstractmethod
    def name(self, index: int) -> str:
        """Return the identifier of image `index`: its path, or `shapes/17`."""

    def label(self, index: int) -> Optional[int]:  # noqa: ARG002 - for those that have labels
        """Return the label of image `index`, or None when it is not known."""
        return None

    def labels(self, index: int) -> Tuple[int, ...]:
        """Return every class of image `index`, in ascending order."""
        label = self.label(index)
        return () if label is None else (label,)

    def box(self, index: int) -> Optional[Box]:  # noqa: ARG002 - for those that have boxes
        """Return the object's bounding box in image `index`, or None when it is not known."""
        return None

    def image_id(self, index: int) -> Optional[int]:  # noqa: ARG002 - for those that have ids
        """Return the id of image `index` in its dataset, or None without one.

        An id is an integer of at most 64 bits.
        """
        return None


def check_classes(what: str, classes: Sequence[str], num_classes: Optional[int]) -> None:
    """Raise an error for a dataset with more classes than the model has outputs.

    Args:
        what: the dataset, for the message.
        classes: class names of the dataset.
        num_classes: number of outputs of the model; None for no limit.

    Raises:
        DataError: a label would be out of range.
    """
    if num_classes is not None and len(classes) > num_classes:
        raise DataError(f"{what} has {len(classes)} classes and the model {num_classes} outputs",
                        f"use a model with as many outputs ('--num-classes {len(classes)}'), or a "
                        "dataset with fewer classes")
