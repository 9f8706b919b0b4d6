"""Samples of a dataset as they are stored in another format."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, Dict, Optional, Tuple

import numpy

# importing it in several threads at once can see a partial module
import torch  # noqa: F401

from ipucnn.core.errors import DataError
from ipucnn.data import Box, ImageDataset, images
from ipucnn.data.dataset_checks import box_of, file_of, image_of
from ipucnn.data.formats.convert_options import DEFAULT_QUALITY, ConvertOptions
from ipucnn.data.image_formats import signature
from ipucnn.data.labels import class_of, id_of
from ipucnn.data.resize import Pixels, to_pillow

log = logging.getLogger(__name__)

_STORED = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "TIFF": "tif", "BMP": "bmp", "WEBP": "webp",
           "PPM": "ppm"}
"""Formats whose files are stored as they are, which every reader of the shards decodes."""
_SEEDS = {"train": 0, "validation": 1}  # one permutation per split from one seed


@dataclass(frozen=True)
class Sample:
    """A stored image with its metadata.

    Attributes:
        data: an encoded image, or an array in numpy's format: uint8, `(3, height, width)`.
        suffix: file suffix of the data, without a dot: `jpg`, `png` ... or `npy`.
        label: its class; None when it is not known.
        box: of its object, in the stored image; None when it is not known.
        image_id: its id in the dataset; None without one.
    """

    data: bytes
    suffix: str
    label: Optional[int]
    box: Optional[Box]
    image_id: Optional[int]


class Samples:
    """One split in the order in which it is stored; thread-safe.

    Args:
        dataset: the split.
        split: `train` or `validation`.
        options: of the conversion.
    """

    def __init__(self, dataset: ImageDataset, split: str, options: ConvertOptions) -> None:
        self.dataset = dataset
        self.split = split
        self.steps = options.images.steps(split)
        self.tensor = options.images.format == "tensor"
        self._quality = options.images.image_quality or DEFAULT_QUALITY
        self._as_it_is = not (self.steps or self.tensor or options.images.image_quality)
        self._check = options.origin.check
        self._skip = options.origin.skip_bad_samples
        self._order: Any = range(len(dataset))
        if options.destination.shuffle:
            self._order = numpy.random.default_rng(
                (options.destination.seed, _SEEDS[split])).permutation(len(dataset))

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def quality(self) -> Optional[int]:
        """JPEG quality; None where images are not encoded."""
        return None if self.tensor or (self._as_it_is and self._has_files()) else self._quality

    def sample(self, position: int) -> Optional[Sample]:
        """Return the sample at a position; None where its image is bad and is skipped.

        Raises:
            DataError: its image cannot be read; the message names it.
        """
        index = int(self._order[position])
        try:
            return self._prepared(index)
        except DataError as error:
            if not self._skip:
                raise
            log.warning("left out: %s", error.message)
            return None

    def fingerprint(self, root: str) -> str:
        """Return a digest of the names of all images, their classes, boxes and ids.

        Args:
            root: the source's folder; it may have been moved.
        """
        dataset, digest = self.dataset, hashlib.md5()
        root = root.rstrip("/")  # which completion in a shell adds
        for index in range(len(dataset)):
            name = dataset.name(index)
            digest.update(json.dumps([
                name[len(root):] if root and name.startswith(root) else name,
                class_of(dataset, index), box_of(dataset, index), id_of(dataset, index)]).encode())
        return digest.hexdigest()

    def _has_files(self) -> bool:
        try:
            return file_of(self.dataset, 0) is not None
        except DataError:  # there is a file, but it cannot be read
            return True

    def _prepared(self, index: int) -> Sample:
        dataset = self.dataset
        box = box_of(dataset, index)
        stored = self._own_file(index) if self._as_it_is else None
        if stored is None:
            pixels = self._pixels(index)
            for step in self.steps:
                pixels, box = step.apply(pixels, box)
            stored = (_array(pixels), "npy") if self.tensor else (
                _jpeg(pixels, self._quality), "jpg")
        return Sample(*stored, class_of(dataset, index), box, id_of(dataset, index))

    def _own_file(self, index: int) -> Optional[Tuple[bytes, str]]:
        """Return the image's file and suffix; None if there is no file or it must be decoded."""
        data = file_of(self.dataset, index)
        suffix = suffix_of(data) if data else None
        if data is None or suffix is None:
            return None
        if self._check:
            images.check(data, partial(self.dataset.name, index))
        return data, suffix

    def _pixels(self, index: int) -> Pixels:
        data = file_of(self.dataset, index)
        if data is None:
            return image_of(self.dataset, index).permute(1, 2, 0).numpy()
        return images.decode_pixels(data, partial(self.dataset.name, index))[0]


def suffix_of(data: bytes) -> Optional[str]:
    """Return the suffix, without a dot, for the content of an image file.

    None where its first bytes match none of the formats that are stored as they are.
    """
    return _STORED.get(signature(data[:64]))


def _jpeg(pixels: Pixels, quality: int) -> bytes:
    content = io.BytesIO()
    to_pillow(pixels).save(content, "JPEG", quality=quality)
    return content.getvalue()


def _array(pixels: Pixels) -> bytes:
    content = io.BytesIO()
    numpy.save(content, numpy.ascontiguousarray(pixels.transpose(2, 0, 1)), allow_pickle=False)
    return content.getvalue()


def facts(samples: Dict[str, Samples], root: str, deep: bool) -> Dict[str, Any]:
    """Return the JSON fingerprint of the splits.

    Args:
        samples: by split.
        root: the source's folder.
        deep: include every image's metadata instead of the dataset's own fingerprint; no image is
            opened.
    """
    return {split: {"images": len(part), "classes": list(part.dataset.class_names),
                    "fingerprint": part.fingerprint(root) if deep else part.dataset.fingerprint()}
            for split, part in samples.items()}
