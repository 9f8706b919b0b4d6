"""Orientation and transparent colour of PNG files, which are stored in several ways."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Optional

from ipucnn.data import jpeg

if TYPE_CHECKING:
    from PIL import Image

_PROFILES = ("Raw profile type exif", "Raw profile type APP1")
"""Texts into which ImageMagick writes EXIF data, in hexadecimal digits."""

_LONGEST = 1 << 17  # characters of such a text that are read; the orientation is at its beginning
_XMP_ORIENTATION = re.compile(r"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([1-8])\b")
_DEPTHS = {"1": 1, "L;2": 2, "L;4": 4, "RGB;16B": 16}
"""Bits of a sample in a file, by Pillow's name of its form, where Pillow converts samples."""


def orientation(image: Image.Image) -> int:
    """Return the orientation of a loaded image, 1 to 8.

    EXIF data comes first; a PNG or WebP file may state the orientation elsewhere: in a text with
    EXIF data, or in XMP.
    """
    found = jpeg.stated_orientation(image.info.get("exif") or b"")
    if found is None and image.format in ("PNG", "WEBP"):
        found = _in_profile(image.info) or _in_xmp(image.info)
    return found or 1


def _in_profile(info: Any) -> Optional[int]:
    for name in _PROFILES:
        lines = str(info.get(name, ""))[:_LONGEST].split("\n")
        digits = re.sub(r"\s", "", "".join(lines[3:]))  # after an empty line, a name and a length
        if re.fullmatch(r"[0-9a-fA-F]*", digits):
            found = jpeg.stated_orientation(bytes.fromhex(digits[:len(digits) // 2 * 2]))
            if found is not None:
                return found
    return None


def _in_xmp(info: Any) -> Optional[int]:
    for name in ("XML:com.adobe.xmp", "xmp"):
        text = info.get(name) or ""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        found = _XMP_ORIENTATION.search(str(text))
        if found:
            return int(found.group(1))
    return None


def scale_transparency(image: Image.Image) -> None:
    """Scale the transparent colour of an image that is not loaded yet like its pixels.

    Pillow scales samples of fewer than 8 bits to 0..255 and uses the high byte of 16-bit colours,
    but does not convert the transparent colour.

    Source: PNG (Third Edition), 11.3.1.1 tRNS.
    """
    tiles = getattr(image, "tile", None)  # empty once it is loaded
    depth = _DEPTHS.get(str(tiles[0][3])) if tiles and image.format == "PNG" else None
    colour = image.info.get("transparency")
    if depth == 16 and isinstance(colour, tuple):
        image.info["transparency"] = tuple(sample >> 8 for sample in colour)
    elif depth and isinstance(colour, int):
        image.info["transparency"] = colour * 255 // ((1 << depth) - 1)
