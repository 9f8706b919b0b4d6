"""The results of `dataset[...]`: parts of a dataset, and images with labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Sequence, Tuple, Union

from ipucnn.core.names import printable
from ipucnn.data import Box, ImageDataset, Label
from ipucnn.data.dataset_checks import image_of
from ipucnn.data.labels import label_of

if TYPE_CHECKING:
    import torch

_PROPERTIES = ("class_names", "ready", "flippable", "has_boxes", "has_image_ids",
               "labels_in_memory", "multi_label", "split", "recipe", "native_size",
               "made_from", "notes", "plugin")


class Sample(Tuple[Any, Any]):
    """An image and its label: `image, label = dataset[0]`.

    Attributes:
        name: of the image: its path, or `shapes/17`.
        label_name: name of the class, or the names of all classes where it may have several; None
            where the label is not known.
    """

    name: str
    label_name: Union[str, Tuple[str, ...], None]

    @property
    def image(self) -> torch.Tensor:
        """The image: RGB, uint8, `(3, height, width)`."""
        image: torch.Tensor = self[0]
        return image

    @property
    def label(self) -> Optional[Label]:
        """The class, or a tuple of all classes where it may have several; None if unknown."""
        label: Optional[Label] = self[1]
        return label

    def __repr__(self) -> str:
        _, height, width = self.image.shape
        return printable(f"<{self.name}: {width}x{height}, label {self.label} "
                         f"({self.label_name})>")


def sample(dataset: ImageDataset, index: int) -> Sample:
    """Return image `index` of a dataset with its label and names.

    Raises:
        DataError: the image cannot be read; the message names the file.
    """
    label = label_of(dataset, index)
    made = Sample((image_of(dataset, index), label))
    made.name = dataset.name(index)
    names = dataset.class_names
    made.label_name = None if label is None else tuple(names[number] for number in label) \
        if isinstance(label, tuple) else names[label] if names else None
    return made


class Part(ImageDataset):
    """Some images of another dataset.

    Args:
        whole: the other one.
        indices: of its images, in the order of the part.
    """

    def __init__(self, whole: ImageDataset, indices: Sequence[int]) -> None:
        self._whole, self._indices = whole, indices
        for name in _PROPERTIES:
            setattr(self, name, getattr(whole, name))

    def __len__(self) -> int:
        return len(self._indices)

    def image(self, index: int) -> torch.Tensor:
        """Return image `index`; see `ImageDataset.image`."""
        return self._whole.image(self._indices[index])

    def encoded(self, index: int) -> Optional[bytes]:
        """Return the file of image `index`; see `ImageDataset.encoded`."""
        return self._whole.encoded(self._indices[index])

    def name(self, index: int) -> str:
        """Return the name of image `index`."""
        return self._whole.name(self._indices[index])

    def label(self, index: int) -> Optional[int]:
        """Return the class of image `index`."""
        return self._whole.label(self._indices[index])

    def labels(self, index: int) -> Tuple[int, ...]:
        """Return every class of image `index`."""
        return self._whole.labels(self._indices[index])

    def box(self, index: int) -> Optional[Box]:
        """Return the bounding box in image `index`."""
        return self._whole.box(self._indices[index])

    def image_id(self, index: int) -> Optional[int]:
        """Return the id of image `index`."""
        return self._whole.image_id(self._indices[index])
