"""Opens the caches of decoded images of trainings and validations: `--cache-images`."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.execution.instances import Instances
from ipucnn.core.files import cache_dir, make_folder, private_folder
from ipucnn.core.machine import available_memory
from ipucnn.core.preprocessing import Preprocessing
from ipucnn.core.registry.records import DatasetSpec
from ipucnn.data import ImageDataset
from ipucnn.data.dataset_checks import order_of
from ipucnn.data.images import decoder_versions
from ipucnn.data.pixel_cache import PixelCache, sampled
from ipucnn.data.pixel_store import PixelStore, in_folder, in_memory, remove, supported
from ipucnn.data.prepare import Preparation
from ipucnn.training.feed import transform_of
from ipucnn.training.options.train_options import TrainOptions
from ipucnn.training.setup.preparation import Prepared

_FORMAT = 1
_SHARE_OF_MEMORY, _SHARE_OF_DISK = 0.5, 0.9
"""Maximum share of the available space for a cache; the network needs memory, too."""

_SAMPLES = 16
"""Number of images from which the size of the cache is estimated."""

_UNUSED_SECONDS = 30 * 24 * 3600.0
"""Seconds without use after which the files of a cache are removed."""


@contextmanager
def kept_images(prepared: Prepared) -> Iterator[None]:
    """Open the caches of a training, and close them at the end of the block; adds to its notes.

    Images that do not fit are decoded each time, with a note.

    Raises:
        UsageError: images of this dataset cannot be cached.
    """
    if not is_cached(prepared.options, prepared.data, prepared.dataset, prepared.notes.append):
        yield
        return
    with closing(ImageCaches()) as caches:
        try:
            prepared.cache = caches.of(_training_images(prepared), prepared.notes.append)
            images = prepared.validation
            if images is not None and not images.in_memory:
                prepared.validation_cache = caches.of(
                    validation_images(prepared.options, prepared.data, images,
                                      prepared.plan.preprocessing, prepared.instances),
                    prepared.notes.append)
            yield
        finally:
            prepared.cache = prepared.validation_cache = None


def is_cached(options: TrainOptions, data: DatasetSpec, dataset: ImageDataset,
              note: Callable[[str], None], once: bool = False) -> bool:
    """Return whether images are cached.

    Args:
        options: of the training or validation.
        data: the dataset's record.
        dataset: its images.
        note: receives the reason if a cache is requested and of no use.
        once: whether every image is used only once.

    Raises:
        UsageError: images of this dataset cannot be cached.
    """
    mode, name = options.dataset.cache_images, data.name
    if mode == "none" or data.on_device:
        return False
    if not data.finite:
        raise UsageError(f"'--cache-images {mode}' cannot be used with dataset {name!r}, which has "
                         "no end", "leave it out, or choose another '--data'")
    if dataset.in_memory:
        note(f"'--cache-images {mode}' has no effect: dataset {name!r} has its images in memory")
        return False
    if mode == "ram" and once:
        note(f"'--cache-images {mode}' has no effect: every image is used once")
        return False
    if mode == "disk" and not dataset.version():
        raise UsageError(f"'--cache-images disk' cannot be used with these images of dataset "
                         f"{name!r}: it cannot notice that they have changed",
                         "use '--cache-images ram'")
    if not supported():
        raise UsageError(f"'--cache-images {mode}' cannot be used on this system, which lacks "
                         "'preadv'", "leave it out")
    return True


def _training_images(prepared: Prepared) -> Images:
    held_out = prepared.validation is not None and prepared.validation.held_out
    return Images(
        prepared.options, prepared.data,
        Preparation(prepared.dataset, prepared.plan.preprocessing, transform_of(prepared)),
        prepared.instances, held_out)


def validation_images(options: TrainOptions, data: DatasetSpec, dataset: ImageDataset,
                      preprocessing: Preprocessing, instances: Instances) -> Images:
    """Return the images of a validation."""
    return Images(options, data, Preparation(dataset, preprocessing), instances, dataset.held_out,
                  validation=True)


@dataclass(frozen=True)
class Images:
    """The images of one split.

    Attributes:
        options: of the training or validation.
        data: the dataset's record.
        preparation: prepares them.
        instances: the processes that share them.
        held_out: which images they are depends on the seed, because some are held out.
        validation: whether they are the validation images.
    """

    options: TrainOptions
    data: DatasetSpec
    preparation: Preparation
    instances: Instances
    held_out: bool
    validation: bool = False

    @property
    def dataset(self) -> ImageDataset:
        """The images themselves."""
        return self.preparation.dataset

    @property
    def what(self) -> str:
        """The images, for notes."""
        return "validation images" if self.validation else "training images"

    @property
    def prepared(self) -> str:
        """A description of the preparation before caching; empty for decoded images."""
        return "" if self.preparation.transform else repr(self.preparation.preprocessing)


class ImageCaches:
    """The caches of decoded images of a command; close them at its end."""

    def __init__(self) -> None:
        self._stores: List[PixelStore] = []
        self._opened: Dict[str, Optional[PixelCache]] = {}

    def of(self, images: Images, note: Callable[[str], Any],
           identity: str = "") -> Optional[PixelCache]:
        """Open a cache; None if the images do not fit, or if it cannot be opened.

        All instances call it.

        Args:
            images: what to cache; `is_cached` is true for them.
            note: receives notes for the user.
            identity: a description of the images if others are cached in between; equal ones share
                a cache.
        """
        if identity and identity in self._opened:
            return self._opened[identity]
        store, text = _agreed(images, sum(store.bytes for store in self._stores))
        if text:
            note(text)
        cache = None
        if store is not None:
            self._stores.append(store)
            cache = PixelCache(store)
        self._opened[identity] = cache
        return cache

    def close(self) -> None:
        """Close the caches; those in memory are lost."""
        for store in self._stores:
            store.close()


def _agreed(images: Images, taken: int) -> Tuple[Optional[PixelStore], str]:
    """Return the store that all instances of a host share, and a note of the first instance."""
    instances = images.instances
    host = socket.gethostname()
    first = instances.gather(host).index(host)
    store, note = None, ""
    if instances.index == first:
        try:
            store, note = _opened(images, taken)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            note = f"{images.what} are not kept: the cache cannot be opened: {why}"
    offers = instances.gather(None if store is None else [
        *store.places, store.limit, store.key.hex()])
    if instances.index != first and offers[first] is not None:
        pixels, entries, limit, key = offers[first]
        try:
            store = PixelStore(pixels, entries, len(images.dataset), limit, bytes.fromhex(key))
        except (OSError, ValueError) as error:
            note = f"instance {instances.index} does not keep {images.what}: {error}"
    return store, note


def _opened(images: Images, taken: int) -> Tuple[Optional[PixelStore], str]:
    """Return the store, with the first images in it, or None if the others would not fit."""
    count, mode = len(images.dataset), images.options.dataset.cache_images
    if mode == "ram":
        memory = available_memory()
        new = True
        limit = (1 << 62) if memory is None else int(_SHARE_OF_MEMORY * memory) - taken
        store = in_memory(count, limit, secrets.token_bytes(16))
        where = "half of the memory that is available"
        hint = "'--cache-images disk' keeps them in files"
    else:
        folder, key = _place(images)
        store = in_folder(folder, count, 0, key)
        free = int(_SHARE_OF_DISK * shutil.disk_usage(str(folder)).free)
        limit = store.limit = store.bytes + free
        new = not store.bytes
        where = f"in {str(folder.parent)!r}"
        hint = "'--cache-images-dir' names another place"
    order = order_of(images.dataset, images.options.dataset.seed, 0)[:_SAMPLES].tolist() \
        if not images.validation else range(0, count, max(1, count // _SAMPLES))[:_SAMPLES]
    each = sampled(images.preparation, PixelCache(store), order)
    need = int(each * count)
    if need > limit or store.full:
        store.close()
        if mode == "disk" and new:
            remove(folder)
        return None, (f"the {images.what} are not kept: decoded they need {_size(need)} or more, "
                      f"and {_size(limit)} can be taken ({where}); {hint}")
    return store, (f"{images.what} are kept once they are decoded, {_size(need)} "
                   + ("in memory" if mode == "ram" else f"in {str(folder)!r}"))


def _place(images: Images) -> Tuple[Path, bytes]:
    """Return the folder of a store and its key; remove stores of earlier versions of the images."""
    options = images.options
    chosen = options.dataset.cache_images_dir
    if chosen:
        root = Path(make_folder(chosen, "--cache-images-dir"))
    else:
        root = cache_dir() / "images"
        private_folder(root)
    named = options.validation.validation_data_dir if images.validation else None
    source = os.path.abspath(os.path.expanduser(named or options.dataset.data_dir or ""))
    # which images are held out depends on the seed
    seed = options.dataset.seed if images.held_out else None
    place = _digest(source, images.data.name, images.validation, images.prepared, seed)[:16]
    key = _digest(_FORMAT, images.dataset.version(), images.prepared, decoder_versions(),
                  place)[:32]
    folder = root / f"{place}-{key[:16]}"
    for other in root.glob("????????????????-????????????????"):
        with suppress(OSError):
            unused = time.time() - (other / "entries").stat().st_mtime > _UNUSED_SECONDS
            if other != folder and (unused or other.name.startswith(place)):
                remove(other)
    return folder, bytes.fromhex(key)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _digest(*values: Any) -> str:
    return hashlib.sha256(repr(values).encode()).hexdigest()
