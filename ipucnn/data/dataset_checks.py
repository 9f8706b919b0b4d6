"""Checks what a dataset plugin returns: images, files, boxes and orders of an epoch.

An image of another type, an order that leaves images out, or other images on another host, would
change a training silently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional, Tuple

from ipucnn.core.errors import CHECK_PLUGIN, PluginError
from ipucnn.core.execution.instances import Instances, check_equal
from ipucnn.core.files import name_text
from ipucnn.core.names import brief, described
from ipucnn.data import Box, ImageDataset

if TYPE_CHECKING:
    import numpy
    import torch

_IMAGE = "a tensor of torch, uint8 (3, height, width), with RGB values from 0 to 255"

def opened(made: ImageDataset, plugin: str) -> ImageDataset:
    """Return the dataset of a plugin, with its names and notes in tuples.

    Args:
        made: the dataset.
        plugin: the plugin in words.

    Raises:
        PluginError: its length, classes, notes or names are of a wrong type, or it is read-only.
    """
    _set(made, plugin, "plugin", plugin)
    try:
        count = len(made)
    except (TypeError, ValueError, OverflowError) as error:
        raise PluginError(f"{plugin} has no length: {error}", CHECK_PLUGIN) from error
    names = tuple(map(name_text, _texts(made.class_names, plugin, "class_names")))
    notes = _texts(made.notes, plugin, "notes")
    _set(made, plugin, "class_names", names)
    _set(made, plugin, "notes", notes)
    name = made.name(0) if count else ""
    if not isinstance(name, str):
        raise PluginError(f"{plugin} returned {described(name)} as the name of an image, expected "
                          "text", CHECK_PLUGIN)
    return made


def _set(made: ImageDataset, plugin: str, name: str, value: Any) -> None:
    """Set an attribute of a dataset to another value.

    Raises:
        PluginError: it is read-only, as a property or in a frozen dataclass.
    """
    if getattr(made, name) == value:
        return
    try:
        setattr(made, name, value)
    except AttributeError as error:
        raise PluginError(f"{name!r} of {plugin} cannot be set: {error}",
                          "report it to its author: its class must not be frozen, and a property "
                          "must return a tuple") from error


def _texts(value: Any, plugin: str, what: str) -> Tuple[str, ...]:
    """Return an attribute that is a tuple of texts."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) for one in value):
        raise PluginError(f"{what!r} of {plugin} is {brief(value)}, expected a tuple of texts",
                          CHECK_PLUGIN)
    return tuple(value)


def image_of(dataset: ImageDataset, index: int) -> torch.Tensor:
    """Return an image of a dataset: RGB, uint8, `(3, height, width)`.

    Raises:
        DataError: the image cannot be read.
        PluginError: the dataset returned anything else.
    """
    import torch

    image = dataset.image(index)
    if isinstance(image, torch.Tensor) and image.dtype is torch.uint8 and image.dim() == 3 \
            and image.shape[0] == 3 and image.numel() and image.device.type == "cpu" \
            and image.layout is torch.strided:
        return image
    raise PluginError(f"{who(dataset)} returned {described(image)} for "
                      f"{dataset.name(index)!r}, expected {_IMAGE}", CHECK_PLUGIN)


def file_of(dataset: ImageDataset, index: int) -> Optional[bytes]:
    """Return the encoded file of an image, or None where it is not stored as one.

    Raises:
        DataError: it cannot be read.
        PluginError: the dataset returned neither bytes nor None.
    """
    data = dataset.encoded(index)
    if data is None or isinstance(data, (bytes, bytearray, memoryview)):
        return data
    raise PluginError(f"{who(dataset)} returned {described(data)} as the file of "
                      f"{dataset.name(index)!r}, expected its content as bytes, or None",
                      CHECK_PLUGIN)


def box_of(dataset: ImageDataset, index: int) -> Optional[Box]:
    """Return the bounding box of the object in an image, or None, in built-in numbers.

    Raises:
        PluginError: the dataset returned something else, such as a box in pixels.
    """
    box = dataset.box(index)
    if box is None:
        return None
    try:
        left, top, right, bottom = map(float, box)
    except (TypeError, ValueError, RuntimeError):  # of another length, or no numbers
        found = None
    else:
        found = left, top, right, bottom
    # annotations may extend beyond the image a little, and pixels do so by far
    if found is None or not all(abs(value - 0.5) <= 1 for value in found):
        raise PluginError(f"{who(dataset)} returned {brief(box)} as the box of "
                          f"{dataset.name(index)!r}, expected left, top, right and bottom relative "
                          "to the size of the image, from 0 to 1", CHECK_PLUGIN)
    return found


def order_of(dataset: ImageDataset, seed: int, epoch: int) -> numpy.ndarray[Any, Any]:
    """Return the order of an epoch: int64 `(n,)`.

    Args:
        dataset: the images.
        seed: of the training.
        epoch: from 0.

    Raises:
        PluginError: it is no permutation of the images.
    """
    import numpy

    found, count = dataset.order(seed, epoch), len(dataset)
    try:
        order = numpy.asarray(found)
        whole = order.ndim == 1 and order.dtype.kind in "iu"
    except (TypeError, ValueError, RuntimeError):  # of sublists, of a tensor on a device
        whole = False
    if not count:
        return numpy.zeros(0, numpy.int64)
    problem = "" if whole else f"it is {described(found)}"
    if not problem and len(order) != count:
        problem = f"it has {len(order)} numbers"
    # samples of an order that repeats images have numbers of their own
    if not problem and type(dataset).original is ImageDataset.original:
        problem = _not_once_each(order, count)
    if problem:
        raise PluginError(
            f"the order of epoch {epoch} of {who(dataset)} is no permutation of its {count} "
            f"images: {problem}, expected an array of the whole numbers from 0 to {count - 1}, "
            "each of them once", CHECK_PLUGIN)
    return order.astype(numpy.int64, copy=False)


def _not_once_each(order: numpy.ndarray[Any, Any], count: int) -> str:
    """Return what is wrong with `count` whole numbers; empty for a permutation."""
    import numpy

    beyond = order[(order < 0) | (order >= count)]
    if len(beyond):
        return f"it contains {beyond[0]}"
    seen = numpy.zeros(count, bool)
    seen[order] = True
    if seen.all():
        return ""
    return f"it lacks {numpy.flatnonzero(~seen)[0]} and repeats another number"


def who(dataset: ImageDataset) -> str:
    """Return the plugin of a dataset in words, or its type if it was not opened by name."""
    return dataset.plugin or f"a dataset of type {type(dataset).__name__!r}"


def check_shared(instances: Instances, dataset: Optional[ImageDataset], what: str = "") -> None:
    """Raise an error in processes that have other images than the first one; collective.

    Hosts that do not share a folder may have different files.

    Args:
        instances: the processes that divide the images.
        dataset: the images; None without any.
        what: which ones, for the error: "validation " or nothing.

    Raises:
        UsageError: names the first process that differs, and the difference.
    """
    if dataset is not None and instances.count > 1:
        check_equal(instances, {
            f"number of {what}images": len(dataset), "classes": list(dataset.class_names),
            f"list of {what}images": dataset.fingerprint()},
            "give every host the same files, under the same names")
