"""Images from Python: Pillow images, numpy arrays, tensors, paths, or datasets of libraries."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping  # typing's has no name in Python 3.8
from threading import Lock
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

from ipucnn.core.errors import DataError, UsageError
from ipucnn.core.files import name_text, native_path
from ipucnn.core.names import brief
from ipucnn.data import ImageDataset
from ipucnn.data.image_files import FileImages, list_images, no_images
from ipucnn.data.images import decode, first_line, pixels_of, read_file
from ipucnn.data.left_out import LeftOut
from ipucnn.data.views import Part, Sample

if TYPE_CHECKING:
    import torch

    from ipucnn.data.resize import Pixels

_KINDS = ("images are of Pillow, uint8 arrays of numpy (height, width, 3), uint8 tensors of torch "
          "(3, height, width), or paths")

_ONE_PIXEL = "an image has at least one pixel"

_LOCKS = tuple(Lock() for _ in range(61))
"""Held while an image of Pillow is read, by its address: it is decoded at its first use, and may be
in several places of a list, which threads read."""


def given_images(images: Any, labels: bool = True) -> Tuple[ImageDataset, bool]:
    """Return images given in Python as a dataset, and whether it is a single image.

    Args:
        images: an image; a path of one, or of a folder of them; several images, or pairs of an
            image and its label, in a list, an array or column of paths, an iterable or anything
            with a length and items (a dataset of torch); or a dataset of ipucnn or an item of it.
        labels: whether labels beside the images are read.

    Raises:
        DataError: a path does not exist, or holds no images.
        UsageError: it has none of these types.
    """
    if isinstance(images, ImageDataset):
        return images, False
    if isinstance(images, Sample):
        return GivenImages([images], labels), True
    if isinstance(images, (str, os.PathLike)):
        return _at(os.fspath(images))
    if _is_array(images):
        if images.ndim == 4 or (images.ndim == 1 and _are_objects(images)):
            return GivenImages(list(images), labels), False
        return GivenImages([images], labels), True
    if _is_pillow(images):
        return GivenImages([images], labels), True
    if not _is_encoded(images) and not _is_mapping(images):
        if hasattr(images, "__len__") and hasattr(images, "__getitem__"):
            return GivenImages(images, labels), False
        if isinstance(images, Iterable):
            return GivenImages(list(images), labels), False
    raise UsageError(f"{type(images).__name__!r} is neither an image nor a collection of images",
                     _remedy(images))


def _remedy(given: Any) -> str:
    """Return the hint for something that is no image."""
    if _is_encoded(given):
        return ("'PIL.Image.open(FILE)' opens the content of an image file; of bytes, FILE is "
                "'io.BytesIO(BYTES)'")
    if _is_mapping(given):
        return "give its images alone: a column of a data frame, or the values of a dictionary"
    return _KINDS


def fitted(images: ImageDataset, input_size: int) -> ImageDataset:
    """Return a given dataset for a model's input size.

    Images that were generated at another size (`ImageDataset.ready`) are resized and cropped like
    photographs.
    """
    if images.ready and len(images) and tuple(images.image(0).shape[1:]) != (input_size,) * 2:
        images = Part(images, range(len(images)))
        images.ready = False
    return images


def _at(path: str) -> Tuple[ImageDataset, bool]:
    place = os.path.expanduser(native_path(path))
    if os.path.isfile(place):
        return FileImages([place]), True
    if not os.path.isdir(place):
        raise DataError(f"there is no image and no folder {path!r}",
                        "download it first" if "://" in path else "check its name")
    left = LeftOut(place)
    paths = list_images(place, left)
    if not paths:
        raise no_images(place, left, "name a folder of images")
    return FileImages(paths, notes=left.notes()), False


class GivenImages(ImageDataset):
    """A collection of images in Python, with labels where its items are pairs.

    Labels are numbers or names. The names of numbered classes are those of the collection
    (`classes` or `class_names`), or the numbers themselves. The labels of a dataset that does not
    list them (`targets`) are read from its items, each of which is loaded once for it. Items of a
    list are read by several threads at a time, those of other collections by one.

    Args:
        items: images, or pairs of an image and its label.
        labels: whether the labels are read.

    Raises:
        UsageError: some items have labels and others have none, or a label has no class.
    """

    def __init__(self, items: Sequence[Any], labels: bool = True) -> None:
        self._items = items
        self._turn = Lock()
        self._paired = len(items) > 0 and _is_pair(items[0])
        self._labels: Optional[List[int]] = None
        self.labels_in_memory = True
        if self._paired and labels:
            self._labels, self.class_names = _numbered(_labels(items), _class_names(items))

    def __getstate__(self) -> Dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_turn"}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        vars(self).update(state, _turn=Lock())

    def __len__(self) -> int:
        return len(self._items)

    def image(self, index: int) -> torch.Tensor:
        """Return image `index`; see `ImageDataset.image`."""
        import torch

        image = self._image(index)
        if isinstance(image, (str, os.PathLike)):
            return decode(_content(image), os.fspath(image))
        return torch.from_numpy(_pixels(image, self.name(index))).permute(2, 0, 1)

    def encoded(self, index: int) -> Optional[bytes]:
        """Return the file of image `index` where a list has its path."""
        if not isinstance(self._items, (list, tuple)):  # loading an item twice costs more
            return None
        image = self._image(index)
        return _content(image) if isinstance(image, (str, os.PathLike)) else None

    def name(self, index: int) -> str:
        """Return the path of image `index` where it is known, or its number."""
        samples = getattr(self._items, "samples", None)  # of torchvision's image folders
        if isinstance(samples, (list, tuple)) and len(samples) == len(self) \
                and isinstance(samples[index], (list, tuple)):
            return name_text(str(samples[index][0]))
        if isinstance(self._items, (list, tuple)):
            image = self._image(index)
            if isinstance(image, (str, os.PathLike)):
                return name_text(os.fspath(image))
        return f"image {index}"

    def label(self, index: int) -> Optional[int]:
        """Return the class of image `index`."""
        return None if self._labels is None else self._labels[index]

    def _image(self, index: int) -> Any:
        if isinstance(self._items, (list, tuple)):
            item = self._items[index]
        else:  # code of the user, such as a dataset that reads from one open file
            with self._turn:
                item = self._items[index]
        return item[0] if self._paired and _is_pair(item) else item


def _content(path: Union[str, os.PathLike[str]]) -> bytes:
    return read_file(os.path.expanduser(native_path(os.fspath(path))))


def _is_encoded(given: Any) -> bool:
    """Return whether something is the content of a file, or an open file."""
    return isinstance(given, (bytes, bytearray, memoryview)) or (
        hasattr(given, "read") and not hasattr(given, "__getitem__"))


def _is_mapping(given: Any) -> bool:
    """Return whether something has keys: a dictionary, or a data frame of pandas."""
    return isinstance(given, Mapping) or hasattr(given, "iloc")


def _are_objects(array: Any) -> bool:
    """Return whether an array or a column of pandas contains texts or other objects."""
    return getattr(array.dtype, "kind", "") in tuple("OUST")  # torch's types have no kind


def _is_pair(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) == 2 and not _is_pillow(item[1])


def _is_array(item: Any) -> bool:
    return hasattr(item, "__array__") and hasattr(item, "ndim") and hasattr(item, "dtype")


def _is_pillow(item: Any) -> bool:
    if "PIL.Image" not in sys.modules:  # so no object can be one of its images
        return False
    from PIL import Image

    return isinstance(item, Image.Image)


def _pixels(image: Any, name: str) -> Pixels:
    """Return an image as uint8 RGB, `(height, width, 3)`.

    Raises:
        DataError: it is no image, or not of 8-bit RGB or grey.
    """
    import numpy

    if _is_pillow(image):
        try:
            with _LOCKS[id(image) // 16 % len(_LOCKS)]:
                pixels = pixels_of(image)
        except Exception as error:  # Pillow raises almost any exception on a damaged file
            raise DataError(f"{name} cannot be read: {first_line(error)}", _KINDS) from error
        if not pixels.size:
            raise DataError(f"{name} has {image.width} x {image.height} pixels", _ONE_PIXEL)
        return pixels
    if not _is_array(image):
        raise DataError(f"{name} is of type {type(image).__name__!r}, and no image",
                        _remedy(image))
    channels_first = hasattr(image, "permute")  # torch's order
    try:
        array = numpy.asarray(image.detach().cpu() if channels_first else image)
    except (TypeError, RuntimeError) as error:  # a tensor without values, or of another layout
        raise DataError(f"{name} cannot be read: {brief(error)}", _KINDS) from error
    if str(array.dtype) != "uint8":
        raise DataError(
            f"{name} has numbers of type {array.dtype}, expected uint8 from 0 to 255",
            "leave 'ToTensor' and 'Normalize' out: a model's own preprocessing is applied")
    if array.ndim == 2:
        array = array[:, :, None]
    shape = "x".join(map(str, array.shape))
    if array.ndim == 3:
        first, last = array.shape[0] in (1, 3), array.shape[2] in (1, 3)
        if first and (channels_first or not last):
            array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in (1, 3) or 0 in array.shape:
        raise DataError(f"{name} has shape {shape}, expected "
                        + ("3 x height x width" if channels_first else "height x width x 3"),
                        _ONE_PIXEL if 0 in array.shape else
                        "give the images of a batch one by one" if array.ndim == 4 else
                        "convert it with 'PIL.Image.fromarray(...)', which removes transparency")
    # a copy, because torch warns about read-only arrays
    return numpy.array(numpy.broadcast_to(array, (*array.shape[:2], 3)), order="C")


def _labels(items: Sequence[Any]) -> List[Any]:
    for name in ("targets", "labels"):
        listed = getattr(items, name, None)
        if listed is not None and hasattr(listed, "__len__") and len(listed) == len(items):
            return [_plain(label) for label in listed]
    found = []
    for index in range(len(items)):
        item = items[index]
        if not _is_pair(item):
            raise UsageError(f"image {index} has no label, and image 0 has one",
                             "give a label to every image, or to none")
        found.append(_plain(item[1]))
    return found


def _plain(label: Any) -> Any:
    try:
        return label.item()
    except (AttributeError, ValueError, RuntimeError):  # text, or several numbers
        return label


def _class_names(items: Any) -> Tuple[str, ...]:
    for name in ("classes", "class_names"):
        names = getattr(items, name, None)
        if isinstance(names, (list, tuple)) and names:
            return tuple(map(str, names))
    inner = getattr(items, "dataset", None)  # of torch's `Subset`
    parts = getattr(items, "datasets", None)  # of its `ConcatDataset`
    if isinstance(parts, (list, tuple)):
        found = {_class_names(part) for part in parts}
        if len(found) > 1:
            raise UsageError("the datasets of the collection have different classes, so that a "
                             "label does not determine a class", "give one of them at a time")
        return found.pop() if found else ()
    return () if inner is None else _class_names(inner)


def _numbered(labels: Sequence[Any], names: Tuple[str, ...]) -> Tuple[List[int], Tuple[str, ...]]:
    """Return labels as indices into class names, and the names."""
    if all(isinstance(label, str) for label in labels):
        names = names or tuple(sorted(set(labels)))
        numbers = {name: number for number, name in enumerate(names)}
        unknown = next((label for label in labels if label not in numbers), None)
        if unknown is not None:
            raise UsageError(f"label {unknown!r} is not one of the dataset's classes",
                             "classes: " + ", ".join(names))
        return [numbers[label] for label in labels], names
    for index, label in enumerate(labels):
        if not isinstance(label, int) or isinstance(label, bool) or label < 0 \
                or (names and label >= len(names)):
            raise UsageError(f"the label of image {index} is {label!r}",
                             f"labels are names, or numbers from 0 to {len(names) - 1}" if names
                             else "labels are names, or numbers from 0")
    return list(labels), names or tuple(map(str, range(max(labels, default=-1) + 1)))
