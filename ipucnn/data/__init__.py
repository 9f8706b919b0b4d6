"""What a dataset is to the rest of ipucnn.

A dataset plugin gives decoded images by index; transforming, batching and prefetching is the
loader's business (`ipucnn.data.loader`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Sequence, Tuple

from ipucnn.core.errors import DataError

if TYPE_CHECKING:
    import numpy
    import torch


Box = Tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, relative to its width and height (0 to 1)."""


@dataclass(frozen=True)
class DatasetRequest:
    """What a run wants of a dataset.

    Attributes:
        data_dir: the dataset's folder; None when the user gave none.
        input_size: height and width of the model's input in pixels.
        num_classes: outputs of the model; None when the dataset decides.
        length: samples wanted of a dataset that makes its own; None leaves it to the dataset.
        seed: for datasets that make their images.
        split: `train`, `validation`, or None for what an evaluation of the whole dataset takes. A
            dataset that has splits, but not this one, raises `NoSplitError`.
        class_names: what labels must count, where a model knows its classes; a folder that lacks
            some of them is then numbered like theirs. Empty leaves the numbers to the dataset.
        annotations: file of annotations, for a dataset whose record takes one; None leaves it to
            the dataset to find its own.
        cache_dir: folder for what is fetched of a dataset that is read from a URL; the user's
            cache when None.
        cache_bytes: how much it may hold; the dataset's choice when None.
    """

    data_dir: Optional[str] = None
    input_size: int = 224
    num_classes: Optional[int] = None
    length: Optional[int] = None
    seed: int = 0
    split: Optional[str] = None
    class_names: Tuple[str, ...] = ()
    annotations: Optional[str] = None
    cache_dir: Optional[str] = None
    cache_bytes: Optional[int] = None


class ImageDataset(ABC):
    """Images by index.

    Attributes:
        class_names: names of the classes its labels count, or empty when it has no labels.
        ready: its images already have the model's input size and are not resized or cropped.
        flippable: an image keeps its class when left and right are exchanged.
        has_boxes: `box` knows where the object is in some of the images.
        has_image_ids: `image_id` knows the number of some of the images.
        notes: what the user should know of it.
    """

    class_names: Tuple[str, ...] = ()
    ready: bool = False
    flippable: bool = True
    has_boxes: bool = False
    has_image_ids: bool = False
    notes: Tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of images."""

    @abstractmethod
    def image(self, index: int) -> torch.Tensor:
        """Return image `index`: RGB, uint8, `(3, height, width)`.

        Raises:
            DataError: the image cannot be read; the message names the file.
        """

    def encoded(self, index: int) -> Optional[bytes]:  # noqa: ARG002 - for those that have files
        """Return the file of image `index` as it is stored, or None where it is not a file.

        A dataset that gives it need not decode: `image` is then what `images.decode` makes of it.

        Raises:
            DataError: it cannot be read; the message names it.
        """
        return None

    def order(self, seed: int, epoch: int) -> numpy.ndarray[Any, Any]:
        """Return the permutation of its indices in which an epoch of training goes through it.

        It depends on the arguments only. Datasets whose neighbours are cheaper to read together
        have an order of their own.

        Args:
            seed: of the training.
            epoch: from 0.
        """
        import numpy

        return numpy.random.default_rng((seed, epoch)).permutation(len(self))

    @abstractmethod
    def name(self, index: int) -> str:
        """Return what identifies image `index`: its path, or `shapes/17`."""

    def label(self, index: int) -> Optional[int]:  # noqa: ARG002 - for those that have labels
        """Return the right class of image `index`, or None when it is not known."""
        return None

    def box(self, index: int) -> Optional[Box]:  # noqa: ARG002 - for those that have boxes
        """Return the object's bounding box in image `index`, or None when it is not known."""
        return None

    def image_id(self, index: int) -> Optional[int]:  # noqa: ARG002 - for those that have ids
        """Return the number that image `index` has in its dataset, or None without one.

        It fits into 64 bits.
        """
        return None


def check_classes(what: str, classes: Sequence[str], num_classes: Optional[int]) -> None:
    """Refuse a dataset with more classes than the model has outputs.

    Args:
        what: the dataset, for the message.
        classes: its class names.
        num_classes: outputs of the model; None when the dataset decides.

    Raises:
        DataError: a label would be out of range.
    """
    if num_classes is not None and len(classes) > num_classes:
        raise DataError(f"{what} has {len(classes)} classes and the model {num_classes} outputs",
                        "take a model with as many outputs, or a dataset with fewer classes")
