"""Small JPEG images for pages, as data URIs."""

from __future__ import annotations

import base64
import io
import os
import re
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Sequence

from ipucnn.core.errors import IpucnnError

if TYPE_CHECKING:
    from ipucnn.data import ImageDataset

SIDE = 112
"""Longer side in pixels; half of this in CSS pixels on high-resolution screens."""

_QUALITY = 78
_URI = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]+={0,2}")
_LARGEST = 1 << 17


def thumbnail(pixels: Any, side: int = SIDE) -> str:
    """Return an image as a data URI of a small JPEG image.

    Args:
        pixels: uint8 `(height, width, 3)`.
        side: the longer side of the result in pixels; smaller images are not enlarged.
    """
    from ipucnn.data.resize import to_pillow

    picture = to_pillow(pixels)
    picture.thumbnail((side, side))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode("ascii")


def checked(value: Any) -> str:
    """Return a thumbnail from a file, or an empty string if it is not valid."""
    fits = isinstance(value, str) and len(value) <= _LARGEST and _URI.fullmatch(value)
    return value if fits else ""


def of_dataset(dataset: ImageDataset) -> Callable[[Dict[str, Any]], str]:
    """Return a function that makes the thumbnail of a selected image of a dataset."""
    def made(row: Dict[str, Any]) -> str:
        from ipucnn.data.dataset_checks import file_of, image_of
        from ipucnn.data.images import decode_pixels

        index = row["index"]
        try:
            data = file_of(dataset, index)  # decoded without torch
            return thumbnail(image_of(dataset, index).permute(1, 2, 0).numpy() if data is None
                             else decode_pixels(data, lambda: dataset.name(index))[0])
        except IpucnnError:  # the file was removed meanwhile
            return ""

    return made


def of_file(path: str, folders: Sequence[str] = ("",)) -> str:
    """Return the thumbnail of an image file; empty if there is none, or it cannot be read.

    Args:
        path: of the file.
        folders: that it may be in, if it is relative.
    """
    from ipucnn.data.images import decode_pixels, read_file

    for folder in folders:
        place = os.path.join(folder, path)
        try:
            if os.path.isfile(place):
                return thumbnail(decode_pixels(read_file(place), lambda: path)[0])
        except (IpucnnError, OSError, ValueError):  # a null character in a path
            continue
    return ""


def with_thumbnails(evidence: Dict[str, Any],
                    make: Callable[[Dict[str, Any]], str]) -> Dict[str, Any]:
    """Return evidence whose selected images have a `thumbnail` where `make` returns one."""
    known: Dict[Any, Optional[str]] = {}

    def seen(row: Dict[str, Any]) -> str:
        key = row.get("index"), row.get("name")
        if key not in known:
            known[key] = make(row)
        return known[key] or ""

    shown = {name: [{**row, "thumbnail": row.get("thumbnail") or seen(row)} for row in rows]
             for name, rows in evidence.get("shown", {}).items()}
    return {**evidence, "shown": shown}
