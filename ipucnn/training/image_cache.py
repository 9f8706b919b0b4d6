"""Opens the caches of decoded images of a training: `--cache-images`."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, List, Optional, Tuple

from ipucnn.core.errors import UsageError
from ipucnn.core.files import make_folder, private_folder
from ipucnn.core.machine import available_memory
from ipucnn.data import ImageDataset
from ipucnn.data.images import decoder_versions
from ipucnn.data.pixel_cache import PixelCache, sampled
from ipucnn.data.pixel_store import PixelStore, in_folder, in_memory, remove, supported
from ipucnn.data.prepare import Preparation
from ipucnn.data.remote.download import cache_dir
from ipucnn.training.feed import transform_of
from ipucnn.training.preparation import Prepared

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
    mode = prepared.options.dataset.cache_images
    if mode == "none" or prepared.data.on_device or not _useful(prepared, mode):
        yield
        return
    stores: List[PixelStore] = []
    try:
        for kind in _kinds(prepared):
            store, note = _agreed(prepared, kind, mode, sum(store.bytes for store in stores))
            if note:
                prepared.notes.append(note)
            if store is None:
                continue
            stores.append(store)
            if kind.validation:
                prepared.validation_cache = PixelCache(store)
            else:
                prepared.cache = PixelCache(store)
        yield
    finally:
        prepared.cache = prepared.validation_cache = None
        for store in stores:
            store.close()


@dataclass(frozen=True)
class _Kind:
    """The cached images of one split.

    Attributes:
        dataset: the images.
        preparation: prepares them.
        validation: whether they are the validation images.
    """

    dataset: ImageDataset
    preparation: Preparation
    validation: bool = False

    @property
    def what(self) -> str:
        """The images, for notes."""
        return "validation images" if self.validation else "training images"

    @property
    def prepared(self) -> str:
        """A description of the preparation before caching; empty for decoded images."""
        return "" if self.preparation.transform else repr(self.preparation.preprocessing)


def _useful(prepared: Prepared, mode: str) -> bool:
    name = prepared.data.name
    if not prepared.data.finite:
        raise UsageError(f"'--cache-images {mode}' cannot be used with dataset {name!r}, which has "
                         "no end", "leave it out, or choose another '--data'")
    if prepared.dataset.in_memory:
        prepared.notes.append(f"'--cache-images {mode}' has no effect: dataset {name!r} has its "
                              "images in memory")
        return False
    if mode == "disk" and not prepared.dataset.version():
        raise UsageError(f"'--cache-images disk' cannot be used with these images of dataset "
                         f"{name!r}: it cannot notice that they have changed",
                         "use '--cache-images ram'")
    if not supported():
        raise UsageError(f"'--cache-images {mode}' cannot be used on this system, which lacks "
                         "'preadv'", "leave it out")
    return True


def _kinds(prepared: Prepared) -> List[_Kind]:
    preprocessing = prepared.plan.preprocessing
    kinds = [_Kind(prepared.dataset,
                   Preparation(prepared.dataset, preprocessing, transform_of(prepared)))]
    images = prepared.validation
    if images is not None and not images.in_memory and prepared.options.validation.mode != "none":
        kinds.append(_Kind(images, Preparation(images, preprocessing), validation=True))
    return kinds


def _agreed(prepared: Prepared, kind: _Kind, mode: str,
            taken: int) -> Tuple[Optional[PixelStore], str]:
    """Return the store that all instances of a host share, and a note of the first instance."""
    instances = prepared.instances
    host = socket.gethostname()
    first = instances.gather(host).index(host)
    store, note = None, ""
    if instances.index == first:
        try:
            store, note = _opened(prepared, kind, mode, taken)
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            note = f"{kind.what} are not kept: the cache cannot be opened: {why}"
    offers = instances.gather(None if store is None else [
        *store.places, store.limit, store.key.hex()])
    if instances.index != first and offers[first] is not None:
        pixels, entries, limit, key = offers[first]
        try:
            store = PixelStore(pixels, entries, len(kind.dataset), limit, bytes.fromhex(key))
        except (OSError, ValueError) as error:
            note = f"instance {instances.index} does not keep {kind.what}: {error}"
    return store, note


def _opened(prepared: Prepared, kind: _Kind, mode: str,
            taken: int) -> Tuple[Optional[PixelStore], str]:
    """Return the store, with the first images in it, or None if the others would not fit."""
    count = len(kind.dataset)
    if mode == "ram":
        memory = available_memory()
        new = True
        limit = (1 << 62) if memory is None else int(_SHARE_OF_MEMORY * memory) - taken
        store = in_memory(count, limit, secrets.token_bytes(16))
        where = "half of the memory that is available"
        hint = "'--cache-images disk' keeps them in files"
    else:
        folder, key = _place(prepared, kind)
        store = in_folder(folder, count, 0, key)
        free = int(_SHARE_OF_DISK * shutil.disk_usage(str(folder)).free)
        limit = store.limit = store.bytes + free
        new = not store.bytes
        where = f"in {str(folder.parent)!r}"
        hint = "'--cache-images-dir' names another place"
    options = prepared.options.dataset
    order = kind.dataset.order(options.seed, 0)[:_SAMPLES].tolist() \
        if not kind.validation else range(0, count, max(1, count // _SAMPLES))[:_SAMPLES]
    each = sampled(kind.preparation, PixelCache(store), order)
    need = int(each * count)
    if need > limit or store.full:
        store.close()
        if mode == "disk" and new:
            remove(folder)
        return None, (f"the {kind.what} are not kept: decoded they need {_size(need)} or more, "
                      f"and {_size(limit)} can be taken ({where}); {hint}")
    return store, (f"{kind.what} are kept once they are decoded, {_size(need)} "
                   + ("in memory" if mode == "ram" else f"in {str(folder)!r}"))


def _place(prepared: Prepared, kind: _Kind) -> Tuple[Path, bytes]:
    """Return the folder of a store and its key; remove stores of earlier versions of the images."""
    options = prepared.options
    chosen = options.dataset.cache_images_dir
    if chosen:
        root = Path(make_folder(chosen, "--cache-images-dir"))
    else:
        root = cache_dir() / "images"
        private_folder(root)
    named = options.validation.validation_data_dir if kind.validation else None
    source = os.path.abspath(os.path.expanduser(named or options.dataset.data_dir or ""))
    # which images are held out depends on the seed
    seed = options.dataset.seed if prepared.validation and prepared.validation.held_out else None
    place = _digest(source, prepared.data.name, kind.validation, kind.prepared, seed)[:16]
    key = _digest(_FORMAT, kind.dataset.version(), kind.prepared, decoder_versions(), place)[:32]
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
