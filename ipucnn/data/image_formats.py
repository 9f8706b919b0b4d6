"""Formats of image files: suffixes, signatures, and which of them the installed decoders read."""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Callable, Optional, Tuple

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".ppm", ".pgm",
                  ".pbm", ".pnm", ".tif", ".tiff")
"""Suffixes of image files that are always read, compared case-insensitively."""

# Named one by one, because some other formats of Pillow start programs (EPS runs Ghostscript).
ALWAYS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "PPM", "TIFF")
"""Formats that are always read, by the names that Pillow gives them."""

EXTRA = "pip install 'ipucnn[formats]'"
"""The command that installs the decoders of other formats."""


@dataclass(frozen=True)
class Format:
    """A format that is read if a decoder is installed.

    Attributes:
        name: Pillow's name of it.
        suffixes: of its files.
        feature: the feature of Pillow that decodes it; empty if Pillow always does.
        module: a Pillow plugin that decodes it where Pillow does not.
    """

    name: str
    suffixes: Tuple[str, ...]
    feature: str = ""
    module: str = ""


FURTHER = (
    Format("HEIF", (".heic", ".heif", ".hif"), "heif", "pillow_heif"),
    Format("AVIF", (".avif", ".avifs"), "avif", "pillow_avif"),
    Format("JPEG2000", (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"), "jpg_2000"),
    Format("ICO", (".ico",)),
    # the format has no signature: it is tried last, and only for files with its suffix
    Format("TGA", (".tga", ".icb", ".vda", ".vst")))

_BY_NAME = {form.name: form for form in FURTHER}
_BY_SUFFIX = {suffix: form for form in FURTHER for suffix in form.suffixes}

_NEVER = (".psd", ".psb", ".xcf", ".svg", ".eps", ".jxl", ".exr", ".hdr", ".dcm", ".dng", ".cr2",
          ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".raw")
_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,7}")

IMAGE, UNREAD, OTHER = "image", "unread", "other"
"""Types of files: supported image, image without a decoder, other file."""


def kind_of(path: str) -> str:
    """Return whether a file is an `IMAGE`, `UNREAD` or `OTHER`, by its suffix.

    A file without a suffix is opened and recognised by its content.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix in IMAGE_SUFFIXES:
        return IMAGE
    form = _BY_SUFFIX.get(suffix)
    if form is not None:
        return IMAGE if readable(form) else UNREAD
    if suffix in _NEVER:
        return UNREAD
    if _SUFFIX.fullmatch(suffix):
        return OTHER
    name = signature(_head(path))
    if not name:
        return OTHER
    return IMAGE if name in ALWAYS or name in _further() else UNREAD


def may_be_image(path: str) -> bool:
    """Return whether a file has the suffix or the first bytes of an image format."""
    return kind_of(path) != OTHER or bool(signature(_head(path)))


def formats_of(data: bytes, name: Callable[[], str]) -> Tuple[str, ...]:
    """Return Pillow's names of the formats that an encoded image may have.

    Args:
        data: the whole file.
        name: returns its name. TGA has no signature: its suffix or its last bytes show it.
    """
    found = signature(data[:64])
    if found in ALWAYS:
        return ALWAYS  # other decoders are not needed
    names = (*ALWAYS, *_further())
    if not found and (data[-18:-2] == b"TRUEVISION-XFILE"
                      or name().lower().endswith(_BY_NAME["TGA"].suffixes)):
        return (*names, "TGA")
    return names


@lru_cache(maxsize=None)
def _further() -> Tuple[str, ...]:
    return tuple(form.name for form in FURTHER if form.name != "TGA" and readable(form))


@lru_cache(maxsize=None)
def readable(form: Format) -> bool:
    """Return whether a decoder of a format is installed; it is then registered with Pillow."""
    if not form.feature:
        return True
    from PIL import features

    # older versions of Pillow warn about unknown features
    known = form.feature in features.modules or form.feature in features.codecs
    if known and features.check(form.feature):
        return True
    if not form.module:
        return False
    try:
        plugin = importlib.import_module(form.module)  # a Pillow plugin registers itself
        if form.name == "HEIF":
            plugin.register_heif_opener()
    except Exception:  # a broken plugin is treated as missing
        return False
    return True


def signature(head: bytes) -> str:
    """Return Pillow's name of the format whose signature a file begins with; empty if none."""
    if head[4:8] == b"ftyp":
        brands = head[8:64]
        if brands[:4] in (b"avif", b"avis") or (brands[:4] in (b"mif1", b"msf1")
                                                and b"avif" in brands):
            return "AVIF"
        return "HEIF" if brands[:4] in _HEIF_BRANDS else ""
    if head[:4] == b"RIFF":
        return "WEBP" if head[8:12] == b"WEBP" else ""
    if head[:2] == b"BM":
        return "BMP" if head[6:10] == bytes(4) else ""
    if re.match(rb"P[1-6]\s+[0-9#]", head):
        return "PPM"
    return next((name for start, name in _SIGNATURES if head.startswith(start)), "")


_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"), (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"), (b"\0\0\1\0", "ICO"))


def unread_format(data: bytes) -> Optional[str]:
    """Return the name of the format of an image that no installed decoder reads, or None."""
    form = _BY_NAME.get(signature(data[:64]))
    return None if form is None or readable(form) else form.name


def _head(path: str) -> bytes:
    try:
        # opening a pipe would block until something writes to it
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
                       | getattr(os, "O_BINARY", 0))
        try:
            return os.read(file, 64)
        finally:
            os.close(file)
    except OSError:
        return b""
